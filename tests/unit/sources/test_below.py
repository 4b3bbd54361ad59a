"""Many names below a folder, judged by a look at each folder; the kernel says where they lead."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from privileges import without_privileges

from distill.data.images import Unusable
from distill.data.sources.folder import read_file
from distill.data.sources.paths import Below, followed
from distill.data.sources.table import TableSource

PIECES = (
    "a",
    "b",
    "0.jpg",
    "in",
    "in.jpg",
    "back",
    "out",
    "out.jpg",
    "loop",
    "way",
    "gone",
    "..",
    ".",
    "",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with each kind of link, and what must not be read beside them."""
    top = tmp_path_factory.mktemp("data").resolve()
    root, away = top / "root", top / "away"
    for folder in (root / "a", root / "b", away):
        folder.mkdir(parents=True)
        (folder / "0.jpg").write_text(f"{folder}")
    (away / "back").symlink_to(root / "a")
    for folder, other in ((root / "a", "../b"), (root / "b", "../a"), (root, "a")):
        for name, target in (
            ("in", other), ("in.jpg", f"{other}/0.jpg"), ("back", away / "back"), ("out", away),
            ("out.jpg", away / "0.jpg"), ("loop", "loop"), ("way", "loop/../out"), ("gone", "no"),
        ):  # fmt: skip
            (folder / name).symlink_to(target)
    return root


def outcome(what: Callable[[], object]) -> str:
    """What comes of it, or why nothing does."""
    try:
        return str(what())
    except Unusable as fault:
        return fault.reason


def opened_by_kernel(path: str) -> str:
    """The file behind all links, or nothing where there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return str(Path(f"/proc/self/fd/{handle}").readlink())
    finally:
        os.close(handle)


def a_name(rng: random.Random, root: Path) -> str:
    """Some way through the links, relative or absolute."""
    start = rng.choice(("", "", "", f"{root}/", f"{root.parent}/away/", "/", "./"))
    pieces = [rng.choice(PIECES) for _ in range(rng.randint(1, 5))]
    return start + "/".join([*pieces, rng.choice(("0.jpg", "out.jpg", "in.jpg", *pieces))])


@pytest.mark.parametrize("held", [2, 20, Below.held])
def test_nothing_leads_out_and_nothing_else_is_lost(root: Path, held: int) -> None:
    rng, many = random.Random(held), Below(str(root))
    many.held = held
    inside = led_out = 0
    for _ in range(2_000):
        named = a_name(rng, root)
        found = outcome(partial(many, named))
        assert found == outcome(partial(followed, str(root), named))
        content = outcome(lambda path=found: read_file(path, follow=False).decode())
        assert content in (f"{root}/a", f"{root}/b") or not content.startswith("/")
        true = opened_by_kernel(os.path.join(root, named))  # noqa: PTH118
        if true.startswith(f"{root}/"):
            assert found == true == f"{root}/{many.origin(found)}"
            inside += 1
        elif true:
            assert not found.startswith("/")
            led_out += 1
    assert min(inside, led_out) > 50


def test_a_folder_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, each = 10, 200
    (tmp_path / "list.csv").write_text(
        "path,identity\n"
        + "".join(f"{n % folders}/{n // folders}.jpg,{n % 7}\n" for n in range(folders * each))
    )
    for number in range(folders):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "0.jpg").write_text("")
    asked, lstat = list[object](), os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **how: asked.append(path) or lstat(path, **how))
    assert len(list(TableSource.at(tmp_path / "list.csv"))) == folders * each
    assert folders < len(asked) < folders * each / 5


def test_a_link_made_after_its_folder_was_listed(tmp_path: Path) -> None:
    (tmp_path / "away").write_text("secret")
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("0.jpg", "1.jpg"):
        (folder / name).write_text(name)
    (folder / "list.csv").write_text("path,identity\n0.jpg,a\n1.jpg,a\n2.jpg,a\n")
    samples = list(TableSource.at(folder / "list.csv"))
    (folder / "1.jpg").unlink()
    for name in ("1.jpg", "2.jpg"):
        (folder / name).symlink_to(tmp_path / "away")
    assert samples[0].read() == b"0.jpg"
    for late in samples[1:]:
        assert "a link, which the listing of its folder did not tell" in outcome(late.read)


def test_a_folder_that_may_be_entered_and_not_listed(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_text("0")
    (tmp_path / "link.jpg").symlink_to("0.jpg")
    (tmp_path / "out.jpg").symlink_to("/etc/hosts")
    tmp_path.chmod(0o100)
    find = Below(str(tmp_path))
    with without_privileges():
        found = [outcome(partial(find, name)) for name in ("0.jpg", "link.jpg", "out.jpg")]
    tmp_path.chmod(0o700)
    assert found[:2] == [str(tmp_path / "0.jpg")] * 2 and "leads out" in found[2]
