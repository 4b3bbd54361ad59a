"""What a run finds out about its network on the way: on the held-out pack, on verification sets."""

# scikit-learn, behind `distill.evaluate`, takes a second in every rank to import, and not every run
# evaluates: so that is imported inside of functions.

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from distill.collectives import all_reduce_sum
from distill.errors import TrainingStopped
from distill.processes.stop import agreed_signal

if TYPE_CHECKING:
    from signal import Signals

    from distill.checkpoint import TrainState
    from distill.data.manifest import Pack
    from distill.evaluate import Report
    from distill.evaluate.embed import Network
    from distill.evaluate.sets import AnyResult
    from distill.job import Job

Advance = Callable[[int], None]


class Measured(NamedTuple):
    """What the network is found to do after a step.

    Attributes:
        report: on the held-out pack; None without one.
        sets: on each verification set.
        scalars: all of it as flat numbers.
    """

    report: Report | None
    sets: list[AnyResult]
    scalars: dict[str, float]


class StoppedInEvaluation(Exception):
    """A stop signal came to some rank in an evaluation, which has ended on all: it takes minutes,
    and who stops a job may wait for seconds. The next start makes it anew.

    Attributes:
        state: what is to be saved.
        by: the signal that the ranks agree on.
    """

    def __init__(self, state: TrainState, by: Signals) -> None:
        super().__init__(state, by)
        self.state, self.by = state, by


def measure(job: Job, state: TrainState) -> Measured:
    """Measure the network as it is, and log it; all ranks must call it.

    Raises:
        StoppedInEvaluation: on all ranks; nothing is logged then.
    """
    try:
        return _measured(job, state)
    except TrainingStopped:
        by = agreed_signal(all_reduce_sum(torch.tensor(job.stops.flags)).tolist())
        assert by is not None
        raise StoppedInEvaluation(state, by) from None


def _measured(job: Job, state: TrainState) -> Measured:
    from distill.evaluate import scalars
    from distill.evaluate.set_report import set_scalars

    with job.engine.evaluating() as network:
        pack = job.plan.evaluation
        report = None if pack is None else _on_pack(job, state, network, pack)
        results = _on_sets(job, state, network) if job.plan.sets else []
    found, verified = scalars(report) if report else {}, set_scalars(results)
    if report:
        job.monitor.evaluation(state.step, found)
    if results:
        job.monitor.verification(state.step, verified)
    return Measured(report, results, found | verified)


def _on_pack(job: Job, state: TrainState, network: Network, pack: Pack) -> Report:
    from distill.evaluate import evaluate

    with _part(job, state, "evaluate", pack.manifest.pairs) as advance:
        return evaluate(
            network,
            pack,
            job.config,
            job.ranks,
            class_names=job.plan.classes,
            checkpoint=_checkpoint(job, state),
            advance=advance,
        )


def _on_sets(job: Job, state: TrainState, network: Network) -> list[AnyResult]:
    from distill.evaluate.sets import evaluate_sets

    images = sum(map(len, job.plan.sets))
    with _part(job, state, "verify", images) as advance:
        return evaluate_sets(
            network.backbone,
            job.plan.sets,
            job.ranks,
            batch_images=job.config.evaluate.batch_images,
            advance=advance,
        )


@contextmanager
def _part(job: Job, state: TrainState, title: str, units: int) -> Iterator[Advance]:
    """Progress of this rank's share of ``units``, signs of life, and a look for stop signals."""
    with job.monitor.part(job.ranks.own_part(title), units // job.ranks.world_size) as shown:

        def advance(done: int) -> None:
            job.watchdog.touch()  # no mark: ranks may have unequal numbers of batches
            shown(done)
            if any(job.stops.flags):  # where it is called, an error of one rank is one of all
                raise TrainingStopped("asked to stop in an evaluation")

        job.watchdog.mark("evaluation", state.step)
        yield advance


def _checkpoint(job: Job, state: TrainState) -> dict[str, Any]:
    return {"run_id": job.facts.run_id, "step": state.step}


def write_reports(job: Job, state: TrainState, found: Measured) -> None:
    """Write what was measured into the run's folder of reports; called by one rank."""
    from distill.evaluate import write_report
    from distill.evaluate.set_report import SetReport, write_set_report

    folder = job.plan.run.report
    if found.report:
        write_report(found.report, folder)
    if found.sets:
        config = job.config.model_dump(mode="json")
        about = _checkpoint(job, state)
        write_set_report(SetReport(found.sets, about, config, job.ranks.world_size), folder)
