"""`pairdistill migrate`: from a file of arcface_torch to one that `train` reads."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from distill.cli.app import build_app
from distill.config import load_config
from distill.errors import UserError

CONFIG = """\
from easydict import EasyDict as edict

# make training faster
config = edict()
config.margin_list = (1.0, 0.0, 0.4)
config.network = "r200"
config.output = None
config.sample_rate = 0.3
config.interclass_filtering_threshold = 0.4
config.fp16 = True
config.batch_size = 128
config.lr = 0.4
config.dali = False

config.rec = "/train_tmp/Web Face"
config.num_classes = 2059906
config.num_image = 42474557
config.num_epoch = 20
config.warmup_epoch = config.num_epoch // 10
config.val_targets = ["lfw", "cfp_fp"]
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "wf42m.py"
    path.write_text(CONFIG)
    return path


def run(*words):
    done = CliRunner().invoke(build_app(), ["migrate", *map(str, words)])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.exception
    return done


def test_what_is_printed_is_what_train_reads(path, tmp_path):
    done = run(path, "--ranks", 32, "train.zero_stage=3")
    (tmp_path / "run.toml").write_text(done.stdout)
    config = load_config(tmp_path / "run.toml")
    assert (config.model.name, config.train.global_batch_pairs) == ("iresnet200", 4096)
    assert (config.train.images, config.train.zero_stage) == ("first", 3)
    assert config.optimizer.warmup_steps == 2 * (42474557 // 4096)
    assert config.run.dir == "runs/wf42m"
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    lines = done.stdout.splitlines()
    assert "#     pairdistill pack '/train_tmp/Web Face' 'packs/Web Face' --aligned" in done.stdout
    assert "#     pairdistill submit run.toml --nodes 4 --gpus-per-node 8" in lines
    assert not any(line.startswith("#     pairdistill train") for line in lines)
    assert "global_batch_pairs = 4096  # config.batch_size = 128 on 32 GPUs" in lines
    assert "log_every_steps = 10  # config.frequent = 10 (base.py)" in lines
    lost = "wf42m.py:9: config.interclass_filtering_threshold = 0.4: "
    assert f"# - {lost}" in done.stdout and f"warning: {lost}" in done.stderr
    assert "# - config.dali = False: " in done.stdout and "dali" not in done.stderr
    assert "config.batch_size = 128 on 32 GPUs" in done.stderr
    words = ["train", str(tmp_path / "run.toml"), "--print-config"]
    shown = CliRunner().invoke(build_app(), words)
    assert shown.exit_code == 0 and 'name = "iresnet200"' in shown.stdout


def test_a_file_is_written_once(path, tmp_path):
    out = tmp_path / "pairs.toml"
    assert run(path, "--out", out, "--images", "pair").stdout == ""
    config = load_config(out)
    assert (config.train.images, config.train.global_batch_pairs) == ("pair", 512)
    assert f"#     pairdistill train {out} --ranks 8" in out.read_text()
    with pytest.raises(UserError, match="is there already"):
        run(path, "--out", out)
    run(path, "--out", out, "--overwrite")
    assert load_config(out).train.images == "first"
    with pytest.raises(UserError, match="a folder"):
        run(path, "--out", tmp_path)


def test_a_mistake_leaves_nothing_behind(path, tmp_path):
    path.write_text(CONFIG.replace("r200", "r2060"))
    with pytest.raises(UserError, match=r"wf42m\.py:6: .*model\.name=NAME"):
        run(path, "--out", tmp_path / "run.toml")
    assert not (tmp_path / "run.toml").exists()
    run(path, "--out", tmp_path / "run.toml", "model.name=vit_small")
    assert load_config(tmp_path / "run.toml").model.name == "vit_small"
    with pytest.raises(UserError, match="No such file"):
        run(tmp_path / "nosuch.py")


def test_the_pack_that_is_to_be_made_is_the_one_that_is_trained_on(path):
    """Also where it is to be elsewhere, or to hold second images; of several nobody knows."""
    pack = "#     pairdistill pack '/train_tmp/Web Face' "
    for words, made in (
        (["data.train=/data/wf"], "/data/wf --aligned --layout singles"),
        (["data.train=/data/wf", "data.second=packed"], "/data/wf --aligned"),
        (["data.train=['a', 'b']"], None),
    ):
        done = run(path, "--ranks", 12, *words)
        assert done.stderr.endswith("= 128 on 12 GPUs; for another number give --ranks\n")
        lines = done.stdout.splitlines()
        assert "#     pairdistill train run.toml --ranks 12" in lines
        found = [line.removeprefix(pack) for line in lines if line.startswith(pack)]
        assert found == ([] if made is None else [made])
