"""Reading a Python configuration without running it, against Python, which runs it."""

from __future__ import annotations

import sys
import types

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from distill.errors import UserError
from distill.migrate.read import MAX_BYTES, read_file, read_text

HEAD = "from easydict import EasyDict as edict\nconfig = edict()\n"
SOME = settings(max_examples=60, deadline=None, derandomize=True)


class EasyDict(dict):
    """As much of easydict as configurations use."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


@pytest.fixture(scope="module", autouse=True)
def easydict():
    with pytest.MonkeyPatch.context() as patch:
        module = types.ModuleType("easydict")
        module.EasyDict = EasyDict
        patch.setitem(sys.modules, "easydict", module)
        yield


def run(text):
    """What Python makes of it."""
    names = {}
    exec(text, names)
    return names["config"]


def read(text):
    return {name: found.value for name, found in read_text(text, "c.py").items() if not found.why}


numbers = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["5e-4", "0x10", "1_000", ".5", "10 * 10000"]),
)
names = st.sampled_from(["lr", "batch_size", "num_epoch", "warmup_epoch", "val_targets"])
signs = st.sampled_from(["+", "-", "*", "/", "//", "%", "**"])
atoms = st.one_of(
    numbers.map(lambda n: f"({n})"), names.map("config.{}".format), names.map("config['{}']".format)
)
arithmetic = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, signs, inner).map(" ".join),
        inner.map("-({})".format),
        inner.map("({})".format),
    ),
    max_leaves=5,
)
texts = st.text(max_size=8).map(repr)
lists = st.one_of(
    st.lists(st.one_of(arithmetic, texts), max_size=4).map(lambda x: f"[{', '.join(x)}]"),
    st.lists(arithmetic, min_size=1, max_size=4).map(lambda x: f"({', '.join(x)},)"),
)
values = st.one_of(arithmetic, texts, lists, st.sampled_from(["None", "True", "False"]))
lines = st.one_of(
    st.tuples(names, values).map(lambda x: f"config.{x[0]} = {x[1]}"),
    st.tuples(names, values).map(lambda x: f"config['{x[0]}'] = {x[1]}  # {x[0]}"),
    st.tuples(names, signs, arithmetic).map(lambda x: f"config.{x[0]} {x[1]}= {x[2]}"),
    st.tuples(names, values).map(lambda x: f"n = config.{x[0]} = {x[1]}\nconfig.seed = n"),
    st.sampled_from(["", "# a comment", "pass", "'''a\ntext'''", "import os"]),
)


@SOME
@given(st.lists(lines, max_size=8))
def test_what_is_read_is_what_python_makes_of_it(body):
    text = HEAD + "\n".join(body)
    try:
        made = run(text)
    except (KeyError, TypeError, ArithmeticError, ValueError, MemoryError):
        assume(False)
    found = read_text(text, "c.py")
    assert found.keys() == made.keys()
    for name, (value, line, why) in found.items():
        assert 1 <= line <= text.count("\n") + 1
        if not why:
            assert (type(value), repr(value)) == (type(made[name]), repr(made[name]))


def test_most_of_that_is_understood():
    """Lest the comparison be of nothing."""
    text = HEAD + (
        "config.num_epoch = 20\nconfig.warmup_epoch = config.num_epoch // 10\n"
        "gpus = 8\nconfig.batch_size = 1024 // gpus\nconfig.lr = 0.1\nconfig.lr *= 2\n"
        "config.margin_list = (1.0, 0.0, 0.4)\nconfig.val_targets = ['lfw'] + ['cfp_fp']\n"
        "config.rec = '/data/' + 'ms1mv3'\nconfig['seed']: int = -(-3) ** 2\nconfig.k = 2 ** -1\n"
    )
    assert read(text) == run(text)
    assert read(text)["batch_size"] == 128 and len(read(text)) == 9


@pytest.mark.parametrize(
    "made",
    [
        "from easydict import EasyDict\nconfig = EasyDict(lr=0.2, seed=1)",
        "import easydict\nconfig = easydict.EasyDict({'lr': 0.2, 'seed': 1})",
        "import easydict as e\nconfig = e.EasyDict()\nconfig.lr = 0.2\nconfig.seed = 1",
        HEAD + "config.x = 3\nconfig = edict(lr=0.1)\nconfig.seed = 1\nconfig.lr = 0.2",
    ],
)
def test_every_way_to_make_it(made):
    assert read(made) == run(made) == {"lr": 0.2, "seed": 1}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("config.x = len('abc')", "Call is not understood"),
        ("config.x = f'{1}'", "JoinedStr is not understood"),
        ("config.x = {'a': 1}", "Dict is not understood"),
        ("config.x = lr", "lr is not known"),
        ("config.x = config.lr", "lr is not known"),
        ("import os\nconfig.x = os", "os is not known: it is imported"),
        ("config.x = 'a' * 3", "arithmetic with what is no number"),
        ("config.x = True + 1", "arithmetic with what is no number"),
        ("config.x = 9 ** 9 ** 9", "too large"),
        ("config.x = 2 ** 200 * 2 ** 200", "too large"),
        ("config.x = (-1) ** 0.5", "no real number"),
        ("config.x = 1 / 0", "zero"),
        ("config.x = 2.0 ** 5000", "out of range"),
        ("config.x = [[1]]", "a list in a list"),
        ("config.x = " + "-" * 60 + "1", "too deep"),
        ("n = 'abcdefgh' * 1\n" + "n = n + n\n" * 9 + "config.x = n", "no number"),
        ("n = 'abcdefgh'\n" + "n = n + n\n" * 20 + "config.x = n", "too long"),
    ],
)
def test_a_value_that_is_not_understood_is_left_open(line, why):
    found = read_text(f"{HEAD}{line}\nconfig.y = 3", "c.py")
    assert why in found["x"].why and found["x"].value is None
    assert found["x"].line == HEAD.count("\n") + line.count("\n") + 1
    assert found["y"].value == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "config.lr = 1\nfor i in []:\n    pass", "c.py:4: only assignments"),
        (HEAD + "if True:\n    config.lr = 1", "c.py:3: only assignments"),
        (HEAD + "config.update(lr=1)", "c.py:3: only assignments"),
        (HEAD + "\ndel config.lr", "c.py:4: only assignments"),
        (HEAD + "other = config\nother.lr = 1", "c.py:4: an assignment to no name"),
        (HEAD + "config.a, config.b = 1, 2", "c.py:3: an assignment to no name"),
        (HEAD + "config.a[0] = 1", "c.py:3: an assignment to no name"),
        ("config.lr = 1", "c.py:1: an assignment before that is made"),
        ("config = dict()", "c.py:1: `config` is made by another"),
        ("edict = dict\nconfig = edict()", "c.py:2: `config` is made by another"),
        ("from easydict import EasyDict as e\ne = dict\nconfig = e()", "c.py:3: `config` is made"),
        ("from configs.base import config", "c.py:1: config comes from another file"),
        ("from configs.base import *", "c.py:1: config comes from another file"),
        (HEAD + "config = edict(**{})", "c.py:3: EasyDict is given what is not read"),
        (HEAD + "config = edict(config)", "c.py:3: EasyDict is given what is not read"),
        (HEAD + "config = edict({1: 2})", "c.py:3: a key that is no text"),
        (HEAD + "config.lr = = 1", "c.py:3: no Python"),
        (HEAD + "config.lr = 1\n\0", "c.py:4: no Python"),
        (HEAD + "config.x = " + "(" * 300 + ")" * 300, "c.py:3: no Python: too many nested"),
        (HEAD + "config.x = " + "-" * 30000 + "1\nx = 1", "c.py:3: expressions too deep"),
        (HEAD + "x = 1\nconfig.x = 1" + " + 1" * 15000, "c.py:4: expressions too deep"),
        ("", "c.py:1: no `config = edict()` in it"),
    ],
)
def test_a_statement_that_is_not_understood_is_a_mistake(text, says):
    with pytest.raises(UserError) as caught:
        read_text(text, "c.py")
    assert str(caught.value).startswith(says)


def test_nothing_is_run(tmp_path):
    touch = f"__import__('pathlib').Path({str(tmp_path / 'seen')!r}).touch()"
    for line in (touch, f"config.x = {touch}", f"config.x: {touch} = 1", f"import os; {touch}"):
        text = f"{HEAD}{line}\n"
        try:
            read_text(text, "c.py")
        except UserError as error:
            assert "c.py:3: only assignments" in str(error)
        assert not (tmp_path / "seen").exists()
    exec(HEAD + f"config.x = {touch}", {})
    assert (tmp_path / "seen").exists(), "it would have been seen"


MANGLED = st.lists(
    st.one_of(lines, st.text(max_size=20), st.sampled_from(HEAD.splitlines())), max_size=8
).map("\n".join)


@settings(max_examples=300, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(st.one_of(st.text(), MANGLED, MANGLED.map(HEAD.__add__)))
def test_any_text_gives_settings_or_a_mistake_with_its_line(text):
    try:
        found = read_text(text, "c.py")
    except UserError as error:
        place, line, _ = str(error).split(":", 2)
        assert place == "c.py" and 1 <= int(line) <= len(text.splitlines()) + 1
    else:
        assert all(isinstance(name, str) for name in found)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "c.py"
    for data, says in {
        b"# \xff": r"c\.py:1: no UTF-8",
        b"#\n#" * MAX_BYTES: "larger than",
    }.items():
        path.write_bytes(data)
        with pytest.raises(UserError, match=says):
            read_file(path)
    with pytest.raises(UserError, match="No such file"):
        read_file(tmp_path / "nosuch.py")
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.encode().replace(b"\n", b"\r\n") + b"config.lr = 1\r\n")
    assert read_file(path)["lr"] == (1, 3, "")
