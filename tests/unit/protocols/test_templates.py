"""IJB's 1:1 and 1:N numbers: against loops in float64, scikit-learn's curve, and over ranks."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from drawn_people import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rank_processes import python
from scipy.ndimage import map_coordinates
from sklearn.metrics import roc_curve
from typer.testing import CliRunner
from written_ijb import ARCFACE

from distill.cli.app import build_app
from distill.data.protocols.ijb import read_templates
from distill.data.protocols.ijb_search import Enrolled, Searches
from distill.errors import UserError
from distill.evaluate.metrics import equal_error_rate
from distill.evaluate.rehearsal import foreseen_of_set
from distill.evaluate.search import search
from distill.evaluate.templates import cosines_of, measure_pairs

pytestmark = pytest.mark.slow

FARS = (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)


def here(*words):
    return CliRunner().invoke(build_app(), ["evaluate", *map(str, words)])


def rows(path):
    return [line.split() for line in path.read_text().splitlines()]


def least_squares(points):
    """The similarity onto ArcFace's template as an ordinary linear system, (2, 3)."""
    system, wanted = [], []
    for (x, y), (u, v) in zip(points, ARCFACE, strict=True):
        system += [[x, -y, 1, 0], [y, x, 0, 1]]
        wanted += [u, v]
    a, b, c, d = np.linalg.lstsq(np.array(system), np.array(wanted))[0]
    return np.array([[a, -b, c], [b, a, d]])


def by_interpolation(rgb, matrix):
    """Each pixel of the aligned face fetched from where it came, in float64."""
    whole = np.vstack([matrix, [0, 0, 1]])
    y, x = np.mgrid[:112, :112]
    back = np.linalg.inv(whole) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    planes = [map_coordinates(rgb[:, :, c].astype(float), back[1::-1], order=1) for c in range(3)]
    return np.stack(planes, -1).reshape(112, 112, 3)


def points_of(folder):
    return [(row[0], np.array(row[1:11], float).reshape(5, 2), float(row[11]))
            for row in rows(folder / "meta" / "ijbc_name_5pts_score.txt")]  # fmt: skip


def test_faces_are_aligned_by_their_points(ijbc):
    found = read_templates(ijbc)
    for number, (name, points, _) in list(enumerate(points_of(ijbc)))[:8]:
        rgb = np.asarray(Image.open(ijbc / "loose_crop" / name))
        aligned, note = found.face(number)
        apart = np.abs(aligned - by_interpolation(rgb, least_squares(points)))
        inside = apart[4:-4, 4:-4]  # beyond the photograph others are black in another way
        assert note == "" and inside.mean() < 0.5 and np.quantile(inside, 0.99) < 4


def test_a_large_face_is_warped_without_being_reduced_first(ijbc, tmp_path):
    """As the protocol has it; packing reduces, which gives other pixels."""
    folder = shutil.copytree(ijbc, tmp_path / "IJBC")
    name, points, _ = points_of(folder)[0]
    rgb = cv2.resize(np.asarray(Image.open(folder / "loose_crop" / name)), None, fx=5, fy=5)
    Image.fromarray(rgb).save(folder / "loose_crop" / name, quality=95)
    listed = folder / "meta" / "ijbc_name_5pts_score.txt"
    first, rest = listed.read_text().split("\n", 1)
    large = " ".join(f"{value:.3f}" for value in (5 * points).ravel())
    listed.write_text(f"{name} {large} {first.split()[-1]}\n{rest}")
    rgb = np.asarray(Image.open(folder / "loose_crop" / name))
    wanted = cv2.warpAffine(rgb, least_squares(5 * points), (112, 112))
    assert np.abs(read_templates(folder).face(0)[0].astype(int) - wanted).max() <= 2


@pytest.fixture(scope="module")
def truth(ijbc):
    """Unit vectors by template id, one image after the other, media by media."""
    backbone, features, lengths = make_model().backbone, [], []
    for name, points, score in points_of(ijbc):
        rgb = np.asarray(Image.open(ijbc / "loose_crop" / name))
        face = cv2.warpAffine(rgb, least_squares(points), (112, 112))
        two = [torch.from_numpy(f.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
               for f in (face, face[:, ::-1])]  # fmt: skip
        with torch.no_grad():
            both = [backbone(each)[0].double().numpy() for each in two]
        lengths += [np.linalg.norm(each) for each in both]
        features.append((both[0] + both[1]) * score)
    of, places = {}, rows(ijbc / "meta" / "ijbc_face_tid_mid.txt")
    for (_, template, media), feature in zip(places, features, strict=True):
        of.setdefault(int(template), {}).setdefault(media, []).append(feature)
    vectors = {t: sum(np.mean(m, axis=0) for m in medias.values()) for t, medias in of.items()}
    return {t: v / np.linalg.norm(v) for t, v in vectors.items()}, np.mean(lengths)


@pytest.fixture(scope="module")
def one(ijbc, weights, tmp_path_factory):
    """What the command finds in one process, batches not full."""
    out = tmp_path_factory.mktemp("one")
    done = here(weights, ijbc, "evaluate.batch_images=7", "--out", out, "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout) == json.loads((out / "sets.json").read_text())
    return json.loads(done.stdout)["sets"][0]


def nearest(scores, same, far):
    """TAR at the corner of scikit-learn's curve that is nearest in FAR, the highest of several."""
    fars, tars, _ = roc_curve(same, scores)
    distance = min(abs(f - far) for f in fars)
    at = max(f for f in fars if abs(f - far) == distance)
    return max(t for f, t in zip(fars, tars, strict=True) if f == at)


def mann_whitney(scores, same):
    wins = [(g > i) + 0.5 * (g == i) for g in scores[same] for i in scores[~same]]
    return np.mean(wins)


def test_pairs_of_templates_are_measured_as_loops_measure_them(ijbc, truth, one):
    vectors, length = truth
    table = np.array(rows(ijbc / "meta" / "ijbc_template_pair_label.txt"), int)
    scores = np.array([vectors[a] @ vectors[b] for a, b, _ in table])
    same = table[:, 2] == 1
    verified = one["verification"]
    assert (one["name"], one["templates"], one["pairs"]) == ("ijbc", len(vectors), len(table))
    assert one["images"] == len(points_of(ijbc)) > 2 * len(vectors)
    assert one["mean_length"] == pytest.approx(length, rel=1e-3)
    assert (verified["genuine"], verified["impostor"]) == (same.sum(), (~same).sum())
    assert verified["auc"] == pytest.approx(mann_whitney(scores, same), abs=1e-4)
    assert 0.6 < verified["auc"] < 0.9999, "a test of numbers, not of an easy set"
    for far, text in ((0.1, "0.1"), (0.01, "0.01")):
        wanted = nearest(scores, same, far)
        assert verified["tar_at_far"][text] == pytest.approx(wanted)
    assert verified["tar_at_far"]["0.001"] is None
    assert "needs 1000 impostor pairs" in verified["reasons"]["tar_at_far_0.001"]
    assert verified["accuracy"] is None


def searched_by_loops(vectors, probes, gallery):
    """For each probe whether it is mated, its place (0 is best), own score and highest score."""
    found = []
    for template, person in probes:
        scores = sorted(((vectors[t] @ vectors[template], p) for t, p in gallery), reverse=True)
        people = [p for _, p in scores]
        mated = person in people
        place = people.index(person) if mated else None
        found.append((mated, place, scores[place][0] if mated else None, scores[0][0]))
    return found


def tpir_by_loops(found, fpir):
    others = [best for mated, _, _, best in found if not mated]
    right = [own for mated, place, own, _ in found if mated and place == 0]
    shares = [
        sum(own >= t for own in right) / sum(mated for mated, *_ in found)
        for t in [*others, *right, np.inf]
        if sum(best >= t for best in others) <= fpir * len(others) + 1e-9
    ]
    return max(shares)


def test_searches_are_measured_as_loops_measure_them(ijbc, truth, one):
    def listed(name):
        with (ijbc / "meta" / f"ijbc_1N_{name}.csv").open(newline="") as file:
            pairs = [(int(r["TEMPLATE_ID"]), int(r["SUBJECT_ID"])) for r in csv.DictReader(file)]
        return list(dict.fromkeys(pairs))

    probes, hits, total, tpirs = listed("probe_mixed"), 0, 0, []
    for name, told in zip(("G1", "G2"), one["search"]["galleries"], strict=True):
        gallery = listed(f"gallery_{name}")
        found = searched_by_loops(truth[0], probes, gallery)
        places = [place for mated, place, *_ in found if mated]
        assert (told["name"], told["people"]) == (name, len(gallery))
        assert (told["mated"], told["unmated"]) == (len(places), len(found) - len(places))
        for k in (1, 5, 10):
            wanted = np.mean([place < k for place in places])
            assert told["rank"][str(k)] == pytest.approx(wanted)
        assert told["tpir_at_fpir"]["0.1"] == pytest.approx(tpir_by_loops(found, 0.1))
        assert told["tpir_at_fpir"]["0.01"] is None
        hits, total = hits + told["rank"]["1"] * len(places), total + len(places)
        tpirs.append(told["tpir_at_fpir"]["0.1"])
    assert one["search"]["rank"]["1"] == pytest.approx(hits / total)
    assert one["search"]["tpir_at_fpir"]["0.1"] == pytest.approx(np.mean(tpirs))


def test_what_numbers_there_will_be_is_known_before(ijbc, one):
    found = {name for name in ("auc", "eer") if one["verification"][name] is not None}
    shares = {"rank": one["search"]["rank"], "tpir_at_fpir_": one["search"]["tpir_at_fpir"]}
    shares["tar_at_far_"] = one["verification"]["tar_at_far"]
    for begin, there in shares.items():
        found |= {begin + name for name, share in there.items() if share is not None}
    told = foreseen_of_set(read_templates(ijbc))
    assert set(told.names) == found > {"auc", "tar_at_far_0.01", "rank1"}
    assert told.reasons == one["verification"]["reasons"]


def test_three_ranks_find_what_one_does(ijbc, weights, one, tmp_path):
    words = (weights, ijbc, "--ranks", "3", "--out", tmp_path)
    done = python("-m", "distill", "evaluate", *map(str, words))
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "sets.json").read_text())
    assert told["ranks"] == 3
    theirs = told["sets"][0]
    assert theirs["mean_length"] == pytest.approx(one["mean_length"], rel=1e-4)
    assert theirs["verification"]["auc"] == pytest.approx(one["verification"]["auc"], abs=1e-4)
    assert theirs["verification"]["impostor"] == one["verification"]["impostor"]
    assert [g["mated"] for g in theirs["search"]["galleries"]] == [12, 8]
    assert theirs["search"]["rank"]["5"] == pytest.approx(one["search"]["rank"]["5"])
    lines = done.stdout.splitlines()
    assert max(map(len, lines[: lines.index(next(x for x in lines if x[:4] == "TAR:"))])) <= 80
    assert "step 12: verification" in done.stdout and "@1e-6" in done.stdout
    assert any(line.split()[:2] == ["ijbc", "G2"] for line in lines)
    with Image.open(tmp_path / "sets.png") as picture:
        assert min(picture.size) > 500


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 999), st.sampled_from([1, 2, 9]))
def test_tar_and_area_of_any_scores(genuine, impostors, seed, digits):
    """With one digit many scores are equal."""
    rng = np.random.default_rng(seed)
    same = rng.permutation(np.arange(genuine + impostors) < genuine)
    scores = np.round(rng.normal(0, 0.3, len(same)) + 0.3 * same, digits)
    found = measure_pairs(scores, same)
    assert found.auc == pytest.approx(mann_whitney(scores, same))
    for (text, tar), far in zip(found.tar_at_far.items(), FARS, strict=True):
        assert float(text) == far
        wanted = nearest(scores, same, far) if impostors * far >= 1 else None
        assert tar == wanted
    assert found.eer == pytest.approx(equal_error_rate(scores[same], scores[~same]), abs=1e-9)


def test_sets_without_one_kind_of_pairs_say_so():
    found = measure_pairs(np.array([0.1, 0.2]), np.array([True, True]))
    assert found.auc is None and found.reasons["auc"] == "no pairs of two people"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 900), st.integers(1, 3000), st.integers(0, 99))
def test_cosines_of_any_pairs(templates, pairs, seed):
    """More first templates than a block has; pairs in no order, some twice."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(templates, 5))
    chosen = rng.integers(0, templates, (pairs, 2)).astype(np.min_scalar_type(templates))
    wanted = [vectors[a] @ vectors[b] for a, b in chosen]
    found = cosines_of(torch.from_numpy(vectors), chosen)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 60), st.integers(0, 99))
def test_any_searches(enrolled, probes, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(enrolled + probes, 4))
    people = rng.integers(0, 2 * enrolled, probes)
    gallery = Enrolled("G1", np.arange(enrolled), np.arange(enrolled))
    mixed = Enrolled("mixed", np.arange(enrolled, enrolled + probes), people)
    told = search(vectors, Searches((gallery,), mixed)).galleries[0]
    loops = searched_by_loops(
        vectors,
        list(zip(mixed.templates, people, strict=True)),
        list(zip(gallery.templates, gallery.people, strict=True)),
    )
    places = [place for mated, place, *_ in loops if mated]
    for k in (1, 5, 10):
        assert told.rank[str(k)] == (np.mean([p < k for p in places]) if places else None)
    for fpir in (0.01, 0.1):
        enough = places and (len(loops) - len(places)) * fpir >= 1 - 1e-9
        wanted = pytest.approx(tpir_by_loops(loops, fpir)) if enough else None
        assert told.tpir_at_fpir[str(fpir)] == wanted


def test_a_damaged_image_is_named_and_nothing_written(ijbc, weights, tmp_path):
    folder = shutil.copytree(ijbc, tmp_path / "IJBC")
    crop = folder / "loose_crop" / "5.jpg"
    crop.write_bytes(crop.read_bytes()[:300])
    done = here(weights, folder, "--out", tmp_path / "report")
    assert isinstance(done.exception, UserError)
    assert "loose_crop/5.jpg: damaged" in str(done.exception)
    assert not (tmp_path / "report" / "sets.json").exists()
