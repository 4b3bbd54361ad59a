"""A whole evaluation against loops over the decoded images, and on several ranks."""

import dataclasses
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from drawn_people import (
    KINDS,
    PEOPLE,
    assert_close,
    draw_pairs,
    make_config,
    make_model,
    make_pack,
    other_of,
)
from rank_processes import on_ranks
from rich.console import Console

from distill.errors import UserError
from distill.evaluate import evaluate, scalars, write_report
from distill.evaluate.rehearsal import foreseen_of_pack
from distill.evaluate.report import CLEAN, Condition, Identification, Verification
from distill.evaluate.table import notes, report_table
from distill.evaluate.verify import FARS
from distill.ranks import Ranks

ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def report(model, pack):
    return evaluate(model, pack, make_config(), ALONE, checkpoint={"step": 7})


@pytest.fixture(scope="module")
def truth(model, labels):
    """Embeddings and logits of every image, one at a time, past the loader and its batches."""

    def look(jpeg):
        rgb = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=True)  # as FFCV decodes
        image = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1
        with torch.no_grad():
            output = model(image)
        vector = output.embeddings[0].double().numpy()
        return vector / np.linalg.norm(vector), output.logits[0].double().numpy()

    pairs = list(draw_pairs(labels))
    seen = {CLEAN: [look(pair.first) for pair in pairs[:: len(KINDS)]]}
    for kind, name in enumerate(KINDS):
        seen[name] = [look(pair.second) for pair in pairs[kind :: len(KINDS)]]
    return {
        name: (np.array([v for v, _ in rows]), np.array([z for _, z in rows]))
        for name, rows in seen.items()
    }


def test_counts_and_names(report, labels):
    assert [c.name for c in report.conditions] == [CLEAN, *KINDS]
    assert report.images == len(labels) == 25
    assert report.people == report.classes == 7
    assert report.checkpoint == {"step": 7} and report.ranks == 1
    assert report.config["model"]["name"] == "tiny"
    assert {c.identification.images for c in report.conditions} == {25}


def test_identification_equals_loops(report, truth, labels):
    for condition in report.conditions:
        logits = truth[condition.name][1]
        found = condition.identification
        order = np.argsort(-logits, axis=1)
        probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert found.top1 == pytest.approx(np.mean(order[:, 0] == labels))
        assert found.top5 == pytest.approx(np.mean((order[:, :5] == labels[:, None]).any(1)))
        own = probability[np.arange(len(labels)), labels]
        assert found.probability == pytest.approx(own.mean(), abs=1e-4)
        assert 0.1 < found.top1 < 1, "a test on chance or on certainty would see little"
        if condition.name == CLEAN:
            assert found.agreement is None
        else:
            same = logits.argmax(1) == truth[CLEAN][1].argmax(1)
            assert found.agreement == pytest.approx(same.mean())


def test_verification_equals_loops(report, truth, labels):
    n = len(labels)
    for condition in report.conditions:
        enrolled, probes = truth[CLEAN][0], truth[condition.name][0]
        genuine, impostor = [], []
        for i in range(n):
            for j in range(n):
                if i == j or (condition.name == CLEAN and i > j):
                    continue
                if condition.name == KINDS[1] and i == other_of(labels, j):
                    continue
                (genuine if labels[i] == labels[j] else impostor).append(enrolled[i] @ probes[j])
        found, genuine, impostor = condition.verification, np.array(genuine), np.array(impostor)
        assert (found.genuine, found.impostor) == (len(genuine), len(impostor))
        wins = np.mean(genuine[:, None] > impostor[None])
        assert found.auc == pytest.approx(wins, abs=1e-4)
        threshold = np.sort(impostor)[::-1][len(impostor) // 10]
        tar = np.mean(genuine > threshold)
        assert found.tar_at_far["0.1"] == pytest.approx(tar)
        assert found.tar_at_far["0.001"] is None
        assert "10000 impostor pairs" in found.reasons["tar_at_far_0.001"]


def test_scalars(report):
    flat = scalars(report)
    first = report.conditions[0]
    assert flat["clean/top1"] == first.identification.top1
    assert flat["forehead/agreement"] == report.conditions[1].identification.agreement
    assert flat["clean/tar_at_far_0.1"] == first.verification.tar_at_far["0.1"]
    assert "clean/agreement" not in flat and "clean/tar_at_far_0.001" not in flat
    mean = (flat["forehead/auc"] + flat["blur/auc"]) / 2
    assert flat["processed/auc"] == pytest.approx(mean)
    assert all(isinstance(value, float) for value in flat.values())


def test_model_and_random_state_stay_as_they_were(model, pack):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, random_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    model.train()
    evaluate(model, pack, make_config(), ALONE)
    assert model.training
    model.eval()
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(random_state, np.random.get_state()[1])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_people_are_matched_by_name_and_strangers_left_out(pack, model, report):
    """A classifier that knows four of the seven people, in another order."""
    names = [PEOPLE[i] for i in (6, 2, 0, 3)]
    known = make_model(classes=4)
    found = evaluate(known, pack, make_config(), ALONE, class_names=names)
    clean = found.conditions[0].identification
    assert clean.images == 4 + 3 + 5 + 6 and clean.top5 is None
    strangers = evaluate(known, pack, make_config(), ALONE, class_names=["x", "y", "z", "w"])
    assert all(c.identification is None for c in strangers.conditions)
    assert strangers.conditions[0].verification.auc is not None


@pytest.mark.parametrize(
    ("names", "pairs_max", "missing"),
    [
        (PEOPLE, 10**6, {"tar_at_far_0.01": "needs 1000 impostor pairs"}),
        (PEOPLE, 50, {"tar_at_far_0.1": "needs 100 impostor pairs"}),
        (PEOPLE, 9, {"accuracy": "10 folds need 10 genuine"}),
        ([PEOPLE[i] for i in (6, 2, 0, 3)], 10**6, {"top5": "no more than five people"}),
        (
            ["x", *"yzw"],
            10**6,
            dict.fromkeys(["top1", "top5"], "training knows none of the people"),
        ),
    ],
)
def test_what_numbers_there_will_be_is_known_before(pack, names, pairs_max, missing):
    config = make_config()
    limited = config.evaluate.model_copy(update={"impostor_pairs_max": pairs_max})
    config = config.model_copy(update={"evaluate": limited})
    found = scalars(evaluate(make_model(len(names)), pack, config, ALONE, class_names=names))
    for condition in (CLEAN, "processed", *KINDS):
        told = foreseen_of_pack(pack, condition, names, pairs_max)
        assert [f"{condition}/{name}" for name in told.names] == [
            name for name in found if name.partition("/")[0] == condition
        ]
        assert all(why in told.reasons[name] for name, why in missing.items())


def test_training_pack_and_diverged_weights_are_refused(tmp_path, pack):
    training = make_pack(tmp_path / "train", [0, 1], purpose="train")
    with pytest.raises(UserError, match="a training pack"):
        evaluate(make_model(), training, make_config(), ALONE)
    broken = make_model()
    broken.backbone.stem[0].weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="75 of 75 images are not finite"):
        evaluate(broken, pack, make_config(), ALONE)


def test_provenance_of_another_pack_or_none(tmp_path):
    pack = make_pack(tmp_path / "pack", [0, 1, 0])
    table = pack.path / "pairs.csv"
    table.write_bytes(table.read_bytes() + b"6,person,blur,photo,,,\r\n")
    with pytest.raises(UserError, match=r"pairs\.csv: 7 rows for 6 pairs"):
        evaluate(make_model(), pack, make_config(), ALONE)
    table.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"pairs\.csv: cannot be read"):
        evaluate(make_model(), pack, make_config(), ALONE)
    table.unlink()
    found = evaluate(make_model(), pack, make_config(), ALONE)
    assert not found.pack["sources_known"] and "no pairs.csv" in notes(found)[-1]


def test_the_table_is_whole_on_80_columns(report):
    """With every number at its longest."""
    fars = dict.fromkeys(FARS, 1.0)
    verified = Verification(1, 1, 1, 1, 0.9876, 0.9999, 0.9876, 0.1234, fars)
    named = Identification(1, 1.0, 1.0, 1.0, 1.0)
    rows = [Condition(name, named, verified) for name in (CLEAN, "forehead")]
    screen = io.StringIO()
    shown = report_table(dataclasses.replace(report, conditions=rows))
    Console(file=screen, width=80).print(shown)
    words = screen.getvalue().splitlines()[-2].split()
    expected = "forehead 100.0 100.0 100.0 0.988 100.0 98.8 ±12.3 100.0 100.0 100.0 100.0"
    assert words == expected.split()


def test_people_nobody_knows_are_told(report):
    strangers = dataclasses.replace(report.conditions[0], identification=None)
    found = dataclasses.replace(report, conditions=[strangers])
    assert "knows none of these people" in "".join(notes(found))
    assert "knows none" not in "".join(notes(report))


def test_files(report, tmp_path):
    write_report(report, tmp_path / "a" / "report")
    text = (tmp_path / "a" / "report" / "report.json").read_text()
    read = json.loads(text)
    assert read == json.loads(json.dumps(dataclasses.asdict(report)))
    assert "NaN" not in text
    # torch.__version__ may end in +cpu or +cu130, which the package's metadata may lack.
    assert read["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    picture = cv2.imread(str(tmp_path / "a" / "report" / "report.png"))
    assert picture.shape[1] > 1500 and picture.std() > 10
    assert sorted(p.name for p in (tmp_path / "a" / "report").iterdir()) == [
        "report.json",
        "report.png",
    ]


def test_unwritable_folder(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_report(report, tmp_path / "file" / "report")


def test_three_ranks_find_what_one_does(report, pack, tmp_path):
    """Uneven shares, a rank without any image, and a corrupt image that all ranks hear of."""
    make_pack(tmp_path / "few", [3])
    bad = make_pack(tmp_path / "bad", [0, 1, 2, 3])
    raw = bytearray(bad.index.shards[0].path.read_bytes())
    end = raw.rindex(b"\xff\xd9")
    raw[end - 200 : end - 100] = bytes(100)
    bad.index.shards[0].path.write_bytes(raw)
    script = Path(__file__).with_name("rank_script.py")
    folders = [str(f) for f in (pack.path, tmp_path / "few", tmp_path / "bad", tmp_path)]
    done = on_ranks(script, *folders, ranks=3)
    assert done.returncode == 0, done.stderr
    told = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(3)]
    assert told[0] == told[1] == told[2]
    assert all("corrupt" in one["bad"] for one in told)
    few = told[0]["few"]["conditions"]
    assert few[0]["identification"]["images"] == 1 and few[0]["verification"]["auc"] is None
    one, three = dataclasses.asdict(report), told[0]["whole"]
    assert three["ranks"] == 3
    for mine, theirs in zip(one["conditions"], three["conditions"], strict=True):
        assert_close(mine, theirs)
