"""What to do when all ranks have left: `python -m launcher.inside.verdict JOBFOLDER STATUS`.

The batch script runs it once after srun, so there is one place where a job is requeued, and no rank
is left that could do it twice. It reads the notes that ranks left, says what came first, and

- a run that saved on a signal, or had nothing to save yet, goes on: `scontrol requeue`, unless the
  job was cancelled, or stopped `NO_PROGRESS_LIMIT` times with no step between;
- so does one that failed, unless it failed `SAME_STEP_LIMIT` times at the same step, or
  `NO_PROGRESS_LIMIT` times without a new checkpoint;
- a mistake of the user's, and a run that stopped itself, end here.

Where Slurm ends a job itself (a node died, `scontrol requeue`, cancelled) it is not asked anything.
No torch here: it runs while Slurm's patience runs out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from distill.errors import TrainingStopped, UserError, one_line
from distill.processes.notes import Note, read_note
from distill.processes.spawn import STOP_SIGNALS
from distill.processes.watchdog import read_beats
from distill.run_dir import JobDir, RunDir
from launcher import slurm
from launcher.inside.outcome import OUTCOME
from launcher.jobfile import JobFile
from launcher.starts import (
    NO_PROGRESS_LIMIT,
    SAME_STEP_LIMIT,
    End,
    add_end,
    ends_in_a_row,
    job_number,
    read_starts,
    restart_count,
)

_ENDED = "pairdistill: start {restart} ended"
_BEFORE = re.compile("^" + _ENDED.format(restart=r"\d+"), re.MULTILINE)
_SRUN = re.compile(r"^srun: error: (\S+): (tasks? [\d,-]+: .+)$", re.MULTILINE)
_PAUSES_SECONDS = (2.0, 8.0)
"""A job that nears its limit, or is preempted, has not much longer."""
_OWN = {UserError.exit_status, TrainingStopped.exit_status}


class Start(NamedTuple):
    """One start of a job.

    Attributes:
        job: number of the job, `12_3` in an array.
        restart: how often it had been started before.
        folder: folder of its run's submission.
        file: what it was to do.
    """

    job: str
    restart: int
    folder: JobDir
    file: JobFile

    @property
    def run(self) -> RunDir:
        """The run."""
        return RunDir(Path(self.file.run))

    @property
    def log(self) -> Path:
        """Log of rank 0, which srun writes to as well."""
        return Path(self.file.logs) / f"{self.job}_0_log.out"


def this_start(folder: Path) -> Start:
    """The start that this process belongs to."""
    path, tasks = JobDir(folder).job_json, JobDir(folder).tasks
    if tasks.exists():
        index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
        path = Path(json.loads(tasks.read_text(encoding="utf-8"))[index])
    return Start(job_number(), restart_count(), JobDir(path.parent), JobFile.read(path))


def failures_of(start: Start) -> list[Note]:
    """Why ranks failed, the first cause first."""
    paths = sorted(start.folder.notes(start.restart).glob("rank*.json"))
    failures = [note for path in paths if (note := read_note(path))]
    return sorted(failures, key=lambda note: (note.secondary, note.when_ns))


def how_it_ended(start: Start, failures: list[Note], status: int) -> End:
    """What the ranks left behind says of the end."""
    outcome = start.folder.notes(start.restart) / OUTCOME
    if outcome.exists() and not failures:
        ended = json.loads(outcome.read_text(encoding="utf-8"))
        kind = "stopped" if ended["stopped_by"] else "complete"
        return End(kind, ended["step"], ended["stopped_by"] or "all steps done", status)
    step = last_step(start)
    if failures and not failures[0].secondary:
        if (number := failures[0].status - 128) in STOP_SIGNALS:
            return End("stopped", step, signal.Signals(number).name, status)
        kind = "mistake" if failures[0].status in _OWN else "failed"
        return End(kind, step, failures[0].text.splitlines()[-1], status)
    return End("failed", step, killed(start) or _lost(failures) or f"status {status}", status)


def _lost(failures: list[Note]) -> str:
    return failures[0].text.splitlines()[-1] if failures else ""


def last_step(start: Start) -> int:
    """Steps made when the ranks were last heard of."""
    starts = [line for line in read_starts(start.run) if line["event"] == "start"]
    ours = [
        line for line in starts if line["job"] == start.job and line["restart"] == start.restart
    ]
    if not ours:
        return max(start.run.checkpoint_steps(), default=0)
    beats = read_beats(start.run.ranks, start.file.world_size)  # more ranks may have been there
    return max([int(ours[-1]["step"]), *(beat.step for beat in beats)])


def killed(start: Start) -> str:
    """The first rank that srun says was killed, in its words."""
    text = start.log.read_text(encoding="utf-8", errors="replace") if start.log.exists() else ""
    found = _SRUN.search(_BEFORE.split(text)[-1])
    return f"{found[2]} on {found[1]}" if found else ""


def decide(start: Start, end: End) -> str:
    """`none`, `requeue`, or why the job is not started again."""
    if end.kind in ("complete", "mistake") or end.cause == "SIGINT":
        return "none"
    state = _patiently(lambda: slurm.state_now(start.job))
    if state != "RUNNING":  # Slurm has made up its mind
        return f"none: the job is {state or 'forgotten'}"
    if hopeless := fails_again(start, end) if end.kind == "failed" else gets_nowhere(start, end):
        return f"none: {hopeless}"
    return "requeue"


def fails_again(start: Start, end: End) -> str:
    """Why a start that failed would not be the last to; empty where another one may get further."""
    here = 1 + ends_in_a_row(start.run, start.job, "failed", end.step, end.step)
    if here >= SAME_STEP_LIMIT:
        return f"it failed {here} times at step {end.step}"
    saved = max(start.run.checkpoint_steps(), default=0)
    unsaved = 1 + ends_in_a_row(start.run, start.job, "failed", saved, sys.maxsize)
    if unsaved >= NO_PROGRESS_LIMIT:
        return f"it failed {unsaved} times since step {saved}, without another checkpoint"
    return ""


def gets_nowhere(start: Start, end: End) -> str:
    """Why a start that was stopped would make no step either; empty where it may."""
    here = 1 + ends_in_a_row(start.run, start.job, "stopped", end.step, end.step)
    if here < NO_PROGRESS_LIMIT:
        return ""
    return f"it was stopped {here} times at step {end.step}; give it more time (--time)"


def requeue(start: Start) -> None:
    """Have Slurm start the job again, from the newest checkpoint."""
    try:
        _patiently(lambda: slurm.ask("scontrol", "requeue", start.job))
    except UserError as error:
        say(
            f"the job could not be requeued ({error.what}); its checkpoints are kept,"
            f" {by_hand(start)}"
        )


def by_hand(start: Start) -> str:
    """What a person is to do where Slurm could not be asked."""
    return f"by hand: scontrol requeue {start.job}"


def _patiently(ask: Callable[[], str]) -> str:
    """Slurm's answer; a controller that is busy has one seconds later.

    Raises:
        UserError: none after `_PAUSES_SECONDS`.
    """
    for seconds in _PAUSES_SECONDS:
        try:
            return ask()
        except UserError:
            time.sleep(seconds)
    return ask()


def say(text: str) -> None:
    """One line in the log."""
    print(f"pairdistill: {one_line(text)}", flush=True)


def conclude(folder: Path, status: int) -> int:
    """Say how the job ended and see to what follows; the exit status of the script."""
    start = this_start(folder)
    failures = failures_of(start)
    end = how_it_ended(start, failures, status)
    if failures and not failures[0].secondary:
        print(failures[0].text, flush=True)  # with its stack trace, where it has one
    try:
        action = decide(start, end)
    except UserError as error:
        action = f"none: {error.what}; {by_hand(start)}"
    end = replace(end, cause=one_line(end.cause))
    try:  # written first: a requeue ends this process too
        add_end(start.run, start.job, start.restart, end, action)
    except OSError as error:  # without the history a failure could be repeated for ever
        action = f"none: {start.run.starts.name} cannot be written ({error.strerror})"
    print(f"{_ENDED.format(restart=start.restart)} after step {end.step}: {end.kind}", flush=True)
    say(f"{end.cause}; {action}")
    if action == "requeue":
        requeue(start)
    return 0 if end.kind == "complete" else status or 1


if __name__ == "__main__":
    sys.exit(conclude(Path(sys.argv[1]), int(sys.argv[2])))
