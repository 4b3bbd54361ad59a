"""TensorBoard's page HPARAMS, as its own back end makes it from the event files of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import backend_context, list_session_groups
from tensorboard.plugins.hparams.api_pb2 import ListSessionGroupsRequest

from distill.config import load_config
from distill.monitor import Monitor
from distill.run_dir import RunDir


def trained(root: Path, top1: float, *words: str, resumed_step: int = 0) -> None:
    """The logs of a run of one step with the settings of ``words``."""
    run, config = RunDir(root), load_config(None, [f"run.dir={root}", *words])
    root.mkdir(exist_ok=True)
    with Monitor(run, config, resumed_step=resumed_step, total_steps=9, active=True) as board:
        board.training(resumed_step + 1, {"loss/total": 2.0})
        board.evaluation(resumed_step + 1, {"clean/top1": top1})


def page(folder: Path) -> tuple[Any, Any]:
    """What TensorBoard says of the experiment, and of each run."""
    runs = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(folder))
    back = backend_context.Context(TBContext(data_provider=provider))
    asked = RequestContext()
    content = back.hparams_metadata(asked, "")
    experiment = back.experiment_from_metadata(
        asked, "", True, content, back.hparams_from_data_provider(asked, "", None)
    )
    request = ListSessionGroupsRequest(start_index=0, slice_size=100, allowed_statuses=[0, 1, 2, 3])
    for metric in experiment.metric_infos:
        request.col_params.add(metric=metric.name)
    return experiment, list_session_groups.Handler(asked, back, "", request).run()


def test_runs_are_compared_by_the_settings_that_differ(tmp_path: Path) -> None:
    trained(tmp_path / "cold", 0.5, "loss.temperature=1", "loss.similarity=none")
    ramp = "loss.temperature={start = 4.0, end = 2.0, over_steps = 10}"
    trained(tmp_path / "warm", 0.75, ramp, 'evaluate.sets=["a b.bin", "c.bin"]')
    trained(tmp_path / "warm", 0.875, ramp, 'evaluate.sets=["a b.bin", "c.bin"]', resumed_step=1)
    experiment, listed = page(tmp_path)
    infos = {info.name: info for info in experiment.hparam_infos}
    assert {name for name, info in infos.items() if info.differs} == {
        "loss.temperature",
        "loss.similarity",
        "evaluate.sets",
    }
    sections = load_config().model_dump()
    every = {f"{name}.{key}" for name, values in sections.items() for key in values}
    assert set(infos) == every - {"run.dir"}
    assert {metric.name.tag for metric in experiment.metric_infos} >= {
        "loss/total",
        "evaluation_clean/top1",
    }
    cold, warm = sorted(listed.session_groups, key=lambda group: group.name)
    assert (cold.name, warm.name) == ("cold/tensorboard", "warm/tensorboard")
    assert cold.hparams["loss.temperature"].number_value == 1.0
    assert "over_steps = 10" in warm.hparams["loss.temperature"].string_value
    assert warm.hparams["evaluate.sets"].string_value == '["a b.bin", "c.bin"]'
    assert warm.hparams["loss.similarity"].string_value == load_config().loss.similarity
    top1 = [
        {metric.name.tag: metric.value for metric in group.metric_values}["evaluation_clean/top1"]
        for group in (cold, warm)
    ]
    assert top1 == [0.5, 0.875]


def test_a_resumed_run_is_compared_by_the_settings_that_it_goes_on_with(tmp_path: Path) -> None:
    trained(tmp_path / "run", 0.5, "optimizer.lr=0.1", "optimizer.power=2")
    trained(tmp_path / "run", 0.75, "optimizer.lr=0.05", resumed_step=1)
    for lr in (0.05, 0.2):
        if lr == 0.2:  # a third start
            trained(tmp_path / "run", 0.875, f"optimizer.lr={lr}", resumed_step=2)
        experiment, listed = page(tmp_path)
        (run,) = listed.session_groups
        assert run.hparams["optimizer.lr"].number_value == lr
        assert run.hparams["optimizer.power"].number_value == load_config().optimizer.power
        assert "optimizer.lr" in {info.name for info in experiment.hparam_infos}
    values = {metric.name.tag: metric.value for metric in run.metric_values}
    assert values["evaluation_clean/top1"] == 0.875
    assert values["loss/total"] == 2.0
