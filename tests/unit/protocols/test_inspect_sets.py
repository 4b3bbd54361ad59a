"""`pairdistill inspect` on what `evaluate` reads, against counts taken from the lists' text."""

import json
import shutil

import pytest
from typer.testing import CliRunner
from written_ijb import IN_GALLERIES
from written_lfw import FOLDS, HALF, PEOPLE, write_lfw

from distill.cli.app import build_app


def told(*words):
    result = CliRunner().invoke(build_app(), ["inspect", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.stdout


def cut(path):
    """Leave the first half of an image: its header is whole."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def words_of(path):
    return [line.replace(",", " ").split() for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def templates(ijbc, tmp_path_factory):
    """One image is cut off; another is of 5x5 pixels, which the protocol takes."""
    folder = tmp_path_factory.mktemp("damaged") / "IJBC"
    shutil.copytree(ijbc, folder)
    cut(folder / "loose_crop" / "3.jpg")
    from PIL import Image

    Image.new("RGB", (5, 5)).save(folder / "loose_crop" / "4.jpg")
    return folder


def test_templates(templates):
    meta = templates / "meta"
    media, pairs = (
        words_of(meta / f"ijbc_{name}.txt") for name in ("face_tid_mid", "template_pair_label")
    )
    probes = {row[0] for row in words_of(meta / "ijbc_1N_probe_mixed.csv")[1:]}
    (found,) = json.loads(told(templates, "--json"))["sets"]
    assert found["templates"] == len({row[1] for row in media})
    assert (found["images"], found["pairs"]) == (len(media), len(pairs))
    assert found["same"] == sum(row[2] == "1" for row in pairs)
    assert found["galleries"] == {"G1": len(IN_GALLERIES[0]), "G2": len(IN_GALLERIES[1])}
    assert (found["probes"], found["folds"], found["damaged"]) == (len(probes), None, 1)
    assert found["damaged_first"][0].startswith("loose_crop/3.jpg: ")


def test_templates_in_words(templates):
    said = told(templates).splitlines()
    assert said[0].startswith("IJBC: 35 templates, 595 pairs of them, ")
    assert "  searches of 28 templates among G1 (3 people) and G2 (2 people)" in said
    assert f"  0 of {len(words_of(templates / 'meta' / 'ijbc_face_tid_mid.txt'))} images" in told(
        templates, "--quick"
    )


def test_both_sets_of_a_folder_and_one_without_searches(ijbc, tmp_path):
    (tmp_path / "IJBC").symlink_to(ijbc)
    (tmp_path / "IJBB" / "meta").mkdir(parents=True)
    (tmp_path / "IJBB" / "loose_crop").symlink_to(ijbc / "loose_crop")
    for path in (ijbc / "meta").glob("*.txt"):
        shutil.copy(path, tmp_path / "IJBB" / "meta" / path.name.replace("ijbc", "ijbb"))
    found = json.loads(told(tmp_path, "--json", "--quick"))["sets"]
    assert [one["name"] for one in found] == ["ijbb", "ijbc"]
    assert (found[0]["galleries"], found[0]["probes"]) == ({}, 0)


def test_a_pairs_txt(tmp_path):
    listed = write_lfw(tmp_path / "lfw")
    named = {(words[0], words[1]) for words in words_of(listed)[1:]}
    named |= {(words[0] if len(words) == 3 else words[2], words[-1])
              for words in words_of(listed)[1:]}  # fmt: skip
    person, number = min(named)
    broken = tmp_path / "lfw" / "lfw_funneled" / person / f"{person}_{int(number):04d}.jpg"
    cut(broken)
    found = json.loads(told(listed, "--json"))
    assert (found["set"], found["pairs"], found["same"]) == (
        "pairs.txt", 2 * FOLDS * HALF, FOLDS * HALF)  # fmt: skip
    assert (found["folds"], found["images"], found["damaged"]) == (FOLDS, len(named), 1)
    assert found["damaged_first"][0].startswith(f"{broken}: ")
    assert json.loads(told(listed, "--json", "--quick"))["damaged"] == 0
    assert f"  {FOLDS} runs, which" in told(listed, "--quick")


def test_a_list_beside_people_leaves_the_folder_a_source(tmp_path):
    write_lfw(tmp_path / "lfw", photographs=".", folds=1)
    result = CliRunner().invoke(build_app(), ["inspect", str(tmp_path / "lfw")])
    assert f"{10 * len(PEOPLE)} photographs of {len(PEOPLE)} people" in result.stdout
    assert "name it to look into it: pairs.txt" in result.stderr
    assert "one run: the published accuracy takes two" in told(tmp_path / "lfw" / "pairs.txt")
