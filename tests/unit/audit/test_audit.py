"""`pairdistill audit` against brute force over all embeddings, and against the injected truth."""

import csv
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from misnamed import EACH, IDENTITIES, PEOPLE, REPEATS, make_model
from rank_processes import python
from typer.testing import CliRunner

from distill import checkpoint
from distill.audit.compare import nearest_others
from distill.cli.app import build_app
from distill.data.excluded import pack_key, read_excluded
from distill.data.manifest import read_pack
from distill.errors import UserError
from distill.processes.spawn import PARENT

LABELS = np.repeat(np.arange(PEOPLE), EACH)


def here(*words):
    """The command in this process."""
    return CliRunner().invoke(build_app(), ["audit", *map(str, words)])


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def by_brute_force(seen, centres, degrees):
    """Pair, cosine, sub-centre, nearest other and its cosine of all that have to be listed."""
    unit = centres.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=2, keepdims=True)
    cosines = np.einsum("nd,ckd->nck", seen, unit)
    own = cosines[np.arange(len(seen)), LABELS]
    chosen = own.argmax(1)
    dominant = [np.bincount(chosen[c == LABELS], minlength=3).argmax() for c in range(PEOPLE)]
    for n, label in enumerate(LABELS):
        cosine = own[n, dominant[label]]
        others = cosines[n].max(1)
        others[label] = -2
        if cosine < np.cos(np.radians(degrees)):
            nearest = int(others.argmax())
            yield n * REPEATS, cosine, chosen[n], IDENTITIES[nearest], others[nearest]


@pytest.mark.parametrize(("degrees", "ranks"), [(75, 1), (60, 1), (30, 1), (75, 3)])
def test_the_list_is_that_of_brute_force(
    weights, misnamed, seen, centres, tmp_path, degrees, ranks
):
    pack, _ = misnamed
    out = tmp_path / "list.csv"
    words = weights, pack.path, "--degrees", degrees, "--out", out
    if ranks == 1:
        assert here(*words).exit_code == 0
    else:
        done = python("-m", "distill", "audit", *map(str, words), "--ranks", "3")
        assert done.returncode == 0, done.stderr
        share = PEOPLE * EACH // 3
        assert f"audit, rank 0's share: {share}/{share}\n" in done.stderr
        assert "people, rank 0's share: " in done.stderr
        assert "whose they may be, rank 0's share: " in done.stderr
        assert f"names: {PEOPLE * EACH * REPEATS}/" in done.stderr  # by rank 0 alone
    rows, expected = read(out), list(by_brute_force(seen, centres, degrees))
    assert len(expected) > 10
    for row, (pair, cosine, chosen, nearest, nearest_cosine) in zip(rows, expected, strict=True):
        assert (row["pack"], int(row["pair"])) == (pack_key(pack), pair)
        assert row["photograph"] == f"photo, {pair // REPEATS}\n"
        assert row["identity"] == IDENTITIES[LABELS[pair // REPEATS]]
        assert (int(row["sub_centre"]), row["nearest"]) == (chosen, nearest)
        assert float(row["cosine"]) == pytest.approx(cosine, abs=1e-4)
        assert float(row["nearest_cosine"]) == pytest.approx(nearest_cosine, abs=1e-4)
    assert names_in(tmp_path) == {"list.csv", "list-people.csv"}


def test_misnamed_photographs_are_found_with_all_pairs_that_show_them(weights, misnamed, tmp_path):
    pack, truth = misnamed
    done = here(weights, pack.path, "--out", tmp_path / "list.csv")
    assert done.exit_code == 0, done.exception
    listed = {int(row["pair"]) for row in read(tmp_path / "list.csv")}
    right = len(listed & truth)
    assert right / len(listed) >= 0.9 and right / len(truth) >= 0.9
    excluded = read_excluded([tmp_path / "list.csv"], [pack])
    expected = set()
    for pair in listed:
        number = pair // REPEATS
        before = number - number % EACH + (number - 1) % EACH  # its second pair is made from it
        expected |= {pair, pair + 1, before * REPEATS + 1}
    assert excluded.gaps.left_out.tolist() == sorted(expected)
    assert f"{PEOPLE * EACH} photographs of {PEOPLE} people; {len(listed)} (" in done.stdout
    left = EACH - np.bincount(LABELS[[pair // REPEATS for pair in listed]], minlength=PEOPLE)
    assert f"without them {(left < 10).sum()} more people have fewer than 10" in done.stdout
    worst = int(left.argmin())
    assert f"largest shares: {IDENTITIES[worst]!r} {EACH - left[worst]} of {EACH}" in (
        done.stdout.replace("\n", " ").replace("\\ n", "\\n")
    )


def test_the_same_command_writes_the_same_bytes_for_the_owner_alone(weights, misnamed, tmp_path):
    before = os.umask(0o077)  # as the program does
    try:
        for name in ("a", "b"):
            assert here(weights, misnamed[0].path, "--out", tmp_path / f"{name}.csv").exit_code == 0
    finally:
        os.umask(before)
    for ending in (".csv", "-people.csv"):
        one, two = (tmp_path / f"{name}{ending}" for name in "ab")
        assert one.read_bytes() == two.read_bytes()
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert len(names_in(tmp_path)) == 4


def test_people_who_are_there_twice_are_listed(save_weights, misnamed, centres, tmp_path):
    """Person 7 gets a centre near that of person 2; all pairs of people by brute force."""
    doubled = centres.clone()
    doubled[7, 1] = doubled[2, 1] + 0.8 * doubled[7, 1]
    doubled[7, 0] = doubled[7, 2] = -doubled[7, 1]  # so that it is the dominant one
    backbone = {f"backbone.{key}": value for key, value in make_model().state_dict().items()}
    weights = save_weights("twice", backbone | {"head.weight": doubled}, sub_centres=3)
    words = "--alike-degrees", 70, "--out", tmp_path / "list.csv"
    assert here(weights, misnamed[0].path, *words).exit_code == 0
    unit = torch.nn.functional.normalize(doubled[:, 1].double(), dim=1)
    expected = [
        (IDENTITIES[i], IDENTITIES[j], pytest.approx(float(unit[i] @ unit[j]), abs=1e-4))
        for i in range(PEOPLE) for j in range(i + 1, PEOPLE)
        if unit[i] @ unit[j] > np.cos(np.radians(70))
    ]  # fmt: skip
    rows = read(tmp_path / "list-people.csv")
    found = [(row["identity"], row["other"], float(row["cosine"])) for row in rows]
    assert found == sorted(expected, key=lambda pair: -pair[2].expected)
    assert (IDENTITIES[2], IDENTITIES[7]) in {pair[:2] for pair in found}
    assert {row["photographs"] for row in rows} == {str(EACH)}
    assert here(weights, misnamed[0].path, "--alike-degrees", 0, "--out",
                tmp_path / "other.csv").exit_code == 0  # fmt: skip
    assert not (tmp_path / "other-people.csv").exists()


def test_only_photographs_that_are_listed_are_compared_with_everybody(
    weights, misnamed, tmp_path, monkeypatch
):
    compared, real = [], nearest_others
    monkeypatch.setattr(
        "distill.audit.votes.nearest_others",
        lambda rows, *rest: (compared.append(len(rows)), real(rows, *rest))[1],
    )
    done = here(weights, misnamed[0].path, "--out", tmp_path / "list.csv")
    listed = len(read(tmp_path / "list.csv"))
    assert 0 < sum(compared) == listed < PEOPLE * EACH / 2
    for part in (
        f"audit: {PEOPLE * EACH}/{PEOPLE * EACH}",
        f"people: {PEOPLE}/{PEOPLE}",
        f"whose they may be: {listed}/{listed}",
        f"names: {PEOPLE * EACH * REPEATS}/",
    ):
        assert part in done.stderr


@pytest.mark.parametrize("by_parent", [True, False])
def test_local_ranks_leave_digests_to_their_parent(
    weights, misnamed, tmp_path, monkeypatch, by_parent
):
    told, real = [], checkpoint.open_weights
    monkeypatch.setattr(
        checkpoint, "open_weights", lambda *a, **k: (told.append(k["compared"]), real(*a, **k))[1]
    )
    if by_parent:
        monkeypatch.setenv(PARENT, "1")
    assert here(weights, misnamed[0].path, "--out", tmp_path / "list.csv").exit_code == 0
    assert told == [by_parent]


def test_a_head_without_centres_or_people_is_refused(save_weights, misnamed, centres, tmp_path):
    backbone = {f"backbone.{key}": value for key, value in make_model().state_dict().items()}
    linear = {
        "head.linear.weight": torch.zeros(PEOPLE, 24),
        "head.linear.bias": torch.zeros(PEOPLE),
    }
    weights = save_weights("linear", backbone | linear, kind="linear")
    done = here(weights, misnamed[0].path, "--out", tmp_path / "list.csv")
    assert isinstance(done.exception, UserError)
    assert "head.kind = 'linear' has no centres" in str(done.exception)
    strangers = [f"stranger {i}" for i in range(PEOPLE)]
    weights = save_weights("strangers", backbone | {"head.weight": centres}, strangers)
    done = here(weights, misnamed[0].path, "--out", tmp_path / "list.csv")
    assert "knows none of its people by name" in str(done.exception)
    assert not names_in(tmp_path)


def test_people_whom_the_network_does_not_know_are_counted(
    save_weights, misnamed, centres, tmp_path
):
    backbone = {f"backbone.{key}": value for key, value in make_model().state_dict().items()}
    weights = save_weights(
        "some", backbone | {"head.weight": centres[2:]}, IDENTITIES[2:], sub_centres=3
    )
    done = here(weights, misnamed[0].path, "--out", tmp_path / "list.csv")
    assert f"{(PEOPLE - 2) * EACH} photographs of {PEOPLE - 2} people" in done.stdout
    assert f"{2 * EACH} more are of people whom the network does not know" in done.stdout
    assert all(int(r["pair"]) >= 2 * EACH * REPEATS for r in read(tmp_path / "list.csv"))


def test_damage_and_another_table_leave_nothing(weights, misnamed, tmp_path):
    copy, out = tmp_path / "copy", tmp_path / "out"
    out.mkdir()
    shutil.copytree(misnamed[0].path, copy)
    table = copy / "pairs.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-2]), encoding="utf-8")
    done = here(weights, copy, "--out", out / "list.csv")
    assert isinstance(done.exception, UserError)
    assert f"{table}: cannot be read (unexpected end of data)" in str(done.exception)
    table.write_bytes(misnamed[0].path.joinpath("pairs.csv").read_bytes() + b"9,a,b,c,d,e,f\r\n")
    done = here(weights, copy, "--out", out / "list.csv")
    assert f"{table}: 217 rows for 216 pairs" in str(done.exception)
    lines = misnamed[0].path.joinpath("pairs.csv").read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join([lines[0], "0,Ada", *lines[2:]]), encoding="utf-8")
    done = here(weights, copy, "--out", out / "list.csv")
    assert f"{table}: cannot be read (line 2 is cut short)" in str(done.exception)
    for text in ("\n".join([lines[0].replace("identity", "who"), *lines[1:]]), ""):
        table.write_text(text, encoding="utf-8")
        done = here(weights, copy, "--out", out / "list.csv")
        assert f"{table}: no column 'identity'" in str(done.exception)
    shard = read_pack(copy).index.shards[0]
    with shard.path.open("r+b") as file:
        file.seek(int(shard.pointers[4, 0]) + 40)
        file.write(b"\x5a\xa5\x5a")
    done = here(weights, copy, "--out", out / "list.csv")
    assert "first image of pair 4 is corrupt" in str(done.exception)
    assert not names_in(out)


def test_a_pack_without_a_table_says_what_it_can(weights, misnamed, tmp_path):
    copy = Path(shutil.copytree(misnamed[0].path, tmp_path / "copy"))
    (copy / "pairs.csv").unlink()
    assert here(weights, copy, "--out", tmp_path / "list.csv").exit_code == 0
    rows = read(tmp_path / "list.csv")
    assert rows and all(row["photograph"] == "" for row in rows)
    assert all(int(row["also"]) == int(row["pair"]) + 1 for row in rows)
