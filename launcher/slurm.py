"""Slurm's own commands: each with a time limit, its failures in one line, its answers parsed."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distill.errors import UserError

TIMEOUT_SECONDS = 60
_OF_A_JOB = re.compile(r"(SLURM|SLURMD|SRUN|SBATCH|SALLOC|PMI|PMIX|SUBMITIT)_")
_OF_RANKS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_KEPT = {"SLURM_CONF", "SLURM_CLUSTERS"}
"""What says where clients ask: the cluster that was asked what it has is to get the job."""
ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
"""States of a job that will not run again (unless it is requeued)."""


@dataclass(frozen=True)
class NodeKind:
    """What the nodes of a partition have, where all or some are alike.

    Attributes:
        count: how many nodes.
        cpus: cores of each.
        mem_gb: memory of each, in GB of 1024 MB, as `--mem` takes them.
        gpus: GPUs of each.
        max_time_min: the partition's time limit in minutes; None for none.
    """

    count: int
    cpus: int
    mem_gb: int
    gpus: int
    max_time_min: int | None


@dataclass(frozen=True)
class Accounted:
    """What the accounting says of a job: the newest of its starts.

    Attributes:
        state: e.g. ``RUNNING``.
        reason: why it waits or failed, in Slurm's words; often empty.
        nodes: where it runs or ran.
    """

    state: str
    reason: str
    nodes: str

    @property
    def has_ended(self) -> bool:
        """Whether it does not run and does not wait to, as far as this knows."""
        return self.state in ENDED


def require(*programs: str) -> None:
    """Refuse where a client of Slurm is missing.

    Raises:
        UserError: the first one that is.
    """
    for program in programs:
        if shutil.which(program) is None:
            raise UserError(
                f"{program} is not on PATH: this machine does not submit to Slurm",
                fix="use a login node of the cluster, or --cluster local",
            )


def silence() -> UserError | None:
    """Why no cluster answers here: a client is missing, or has none to ask; None where one does."""
    try:
        require("sbatch", "srun")
        partitions()
    except UserError as error:
        return error
    return None


def ask(*argv: str) -> str:
    """What a client writes to standard output.

    Raises:
        UserError: it is missing, fails or does not answer; its own words are shown.
    """
    require(argv[0])
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{argv[0]}: no answer within {TIMEOUT_SECONDS} s", fix="try again later"
        ) from None
    if done.returncode:
        raise UserError(
            f"{' '.join(argv)}: {_last(done.stderr) or f'status {done.returncode}'}",
            fix="see `pairdistill doctor --slurm`",
        )
    return done.stdout


def run_in_job(script: str, *, seconds: float) -> str:
    """What a script of bash that ends as ``exec srun ...`` writes, whatever its status.

    It may wait for a node.

    Raises:
        UserError: it does not end in time; nothing of it stays in the queue.
    """
    require("srun")
    pipe, argv = subprocess.PIPE, ("bash", "-c", script)
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, errors="replace") as srun:
        try:
            answer, errors = srun.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            srun.terminate()  # killed, it would leave its job in the queue
            srun.communicate()
            raise UserError(
                f"srun: no node within {seconds:.0f} s", fix="try again later"
            ) from None
    if not answer:
        raise UserError(f"srun: {_last(errors) or f'status {srun.returncode}'}")
    return answer


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def partitions() -> tuple[list[str], str]:
    """Names of the partitions, and which is the default one; empty where there is none.

    Hidden ones too (``-a``): sbatch takes jobs for them, and knows who may use which.
    """
    names = ask("sinfo", "-a", "-h", "-o", "%P").split()
    default = next((name.rstrip("*") for name in names if name.endswith("*")), "")
    return list(dict.fromkeys(name.rstrip("*") for name in names)), default


def node_kinds(partition: str) -> list[NodeKind]:
    """The kinds of nodes of a partition, hidden or not (sinfo refuses ``-p`` beside ``-a``)."""
    lines = ask("sinfo", "-a", "-h", "-e", "-o", "%R|%D|%c|%m|%G|%l").splitlines()
    named = (line.strip().split("|", 1) for line in lines if line.strip())
    return [_node_kind(kind) for name, kind in named if name == partition]


def _node_kind(line: str) -> NodeKind:
    count, cpus, megabytes, gres, limit = line.split("|")
    return NodeKind(
        count=_number(count),
        cpus=_number(cpus),
        mem_gb=_number(megabytes) // 1024,  # sbatch takes its GB for 1024 MB
        gpus=gpus_of(gres),
        max_time_min=_limit_minutes(limit),
    )


def _number(text: str) -> int:
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else 0


def gpus_of(gres: str) -> int:
    """GPUs in Slurm's list of generic resources, e.g. 8 of ``gpu:a100:8(S:0-1),lustre:1``."""
    plain = re.sub(r"\([^)]*\)", "", gres)
    return sum(int(count) for count in re.findall(r"\bgpu(?::[^:,]+)?:(\d+)", plain))


def _limit_minutes(text: str) -> int | None:
    """Minutes of Slurm's ``D-HH:MM:SS``, ``HH:MM:SS`` or ``MM:SS``; None for no limit."""
    if not text[:1].isdigit():
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, mins = (parts[0], parts[1]) if len(parts) == 3 else (0, parts[0])
    return (int(days or 0) * 24 + hours) * 60 + mins


def accounts_of_user() -> list[str]:
    """Accounts that the user may charge; empty where the cluster keeps none."""
    user = pwd.getpwuid(os.getuid()).pw_name
    found = ask("sacctmgr", "-n", "-P", "show", "assoc", f"user={user}", "format=account")
    return sorted({line.strip() for line in found.splitlines() if line.strip()})


def accounted(jobs: Sequence[str]) -> dict[str, Accounted]:
    """What Slurm says of jobs, by their number; those it has forgotten are left out.

    The accounting knows those that have begun, the controller those that wait (a run of an array
    that is cancelled while it waits is known to neither). A start that ended is not the end of a
    job: for the accounting one whose node died has failed until it may begin again, minutes later.
    Where there is no accounting, or it does not answer, the controller alone is asked, which
    forgets jobs some minutes after they end. Never submitit's own view, which remembers the first
    final state.

    Raises:
        UserError: the controller does not answer.
    """
    known, silence = accounted_so_far(jobs)
    if silence is not None:
        raise silence
    return known


def accounted_so_far(jobs: Sequence[str]) -> tuple[dict[str, Accounted], UserError | None]:
    """`accounted`, and why the controller did not answer; then of the accounting alone."""
    if not jobs:
        return {}, None
    silence = None
    columns = "JobID,State,Reason,NodeList"
    try:
        known = _jobs(ask("sacct", "-n", "-P", "-X", "-o", columns, "-j", ",".join(jobs)))
    except UserError:
        known = {}
    doubtful = [job for job in jobs if job not in known or known[job].has_ended]
    if doubtful:
        try:
            there = in_queue()
        except UserError as error:
            there, silence = {}, error
        alive = {job: there[job] for job in doubtful if job in there and not there[job].has_ended}
        known = there | known | alive
    return {job: known[job] for job in jobs if job in known}, silence


def in_queue() -> dict[str, Accounted]:
    """The user's jobs as the controller has them, by number: those that wait, run or ended lately.

    Raises:
        UserError: it does not answer.
    """
    user = pwd.getpwuid(os.getuid()).pw_name
    return _jobs(ask("squeue", "-a", "-h", "-r", "-t", "all", "-u", user, "-o", "%i|%T|%r|%N"))


def restarts(job: str) -> int:
    """How often a job that waits or runs was started again."""
    return _number(ask("squeue", "-a", "-h", "-j", job, "-O", "RestartCnt").strip())


def _jobs(text: str) -> dict[str, Accounted]:
    """Jobs by number, from lines of number, state, reason and nodes."""
    known = {}
    for line in text.splitlines():
        number, state, reason, nodes = line.split("|")[:4]
        plain = "" if reason in ("None", "Unknown") else reason
        known[number] = Accounted(state.split()[0], plain, nodes)
    return known


def state_now(job: str) -> str:
    """State of a job as the controller has it, e.g. ``RUNNING``; empty where it is forgotten."""
    lines = ask("squeue", "-a", "-h", "-t", "all", "-j", job, "-o", "%T").split()
    return lines[0] if lines else ""


def without_job() -> dict[str, str]:
    """This environment without what a job around us has set.

    A job that is submitted from inside another must not inherit its place among ranks, and options
    in ``SBATCH_…`` variables would silently win over those in the script.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not (_OF_A_JOB.match(name) or name in _OF_RANKS)
    }


@contextmanager
def clean_environment() -> Iterator[None]:
    """`without_job` as the environment while the block runs."""
    before = dict(os.environ)
    kept = without_job()
    os.environ.clear()
    os.environ.update(kept)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
