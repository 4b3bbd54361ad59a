"""The batch script: what submitit makes of a request, with what comes before and after the ranks.

Only words that `launcher.fields` lets pass, and paths without control characters, get in here, and
they are quoted. Nothing of a configuration does: the job reads that from a file.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import submitit

from distill.run_dir import JobDir
from launcher.fields import check_path, job_name
from launcher.resources import Resources
from launcher.site import Site

_FAILED = "echo 'error: the job could not be prepared' >&2; exit 2"
_NOT_OURS = "echo 'error: the job folder is gone, or is not yours' >&2; exit 2"


class Executor(submitit.SlurmExecutor):  # type: ignore[misc]
    """submitit's, also where Slurm is not installed: a script can be shown anywhere."""

    @classmethod
    def affinity(cls) -> int:
        """How well this machine suits; submitit asks."""
        return 1

    def script_text(self) -> str:
        """The script of one job, as it would be submitted."""
        return str(self._make_submission_file_text(self._submitit_command_str, ""))


def make_executor(job: JobDir, name: str, wanted: Resources, site: Site, **more: Any) -> Executor:
    """Submitit's executor for a request.

    Args:
        job: folder of the submission.
        name: what to call the job; any text.
        wanted: what it asks for.
        site: the cluster.
        more: further parameters of submitit.

    Raises:
        UserError: a path that Slurm would not take as it is.
    """
    check_path("run.dir", str(job.root))
    executor = Executor(
        folder=job.slurm, max_num_timeout=1000, python=shlex.quote(site.python or sys.executable)
    )
    executor.update_parameters(
        job_name=job_name(name),
        setup=setup_lines(job, site),
        teardown=teardown_lines(job),
        **_parameters(wanted, site),
        **more,
    )
    return executor


def _parameters(wanted: Resources, site: Site) -> dict[str, Any]:
    """What submitit and Slurm are to know; what is empty is left to the cluster."""
    more: dict[str, Any] = {"requeue": True, "signal": f"USR2@{site.signal_seconds}"}
    optional = {
        "mem": f"{wanted.mem_gb}GB" if wanted.mem_gb else "",
        "exclusive": site.exclusive,
        "dependency": f"afterok:{wanted.after}" if wanted.after else "",
    }
    return {
        "nodes": wanted.nodes,
        "ntasks_per_node": wanted.ranks_per_node,
        "cpus_per_task": wanted.cpus_per_rank,
        "time": wanted.time_min,
        "stderr_to_stdout": True,
        "srun_args": _srun(wanted, site),
        # submitit's own are not asked for: a signal that a variable of it names, which the ranks
        # would not heed, and a wckey, which a cluster that checks them refuses.
        "additional_parameters": more | where(wanted, site),
        "wckey": None,
        **{name: value for name, value in optional.items() if value},
    }


def where(wanted: Resources, site: Site) -> dict[str, str]:
    """Options of sbatch, and of srun, that say on which nodes and on whose account; none empty."""
    kind = f"{site.gpu_type}:" if site.gpu_type else ""
    options = {
        "partition": wanted.partition,
        "account": wanted.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "reservation": site.reservation,
        "exclude": wanted.exclude,
        "gpus-per-node": f"{kind}{wanted.gpus_per_node}" if wanted.gpus_per_node else "",
    }
    return {option: value for option, value in options.items() if value}


def _srun(wanted: Resources, site: Site) -> list[str]:
    """Words for srun; those of a container come last, right before Python."""
    return [
        "--open-mode=append",  # a requeued job goes on with its logs
        "--kill-on-bad-exit=1",
        f"--cpus-per-task={wanted.cpus_per_rank}",  # srun does not take it from sbatch any more
        *site.container,
    ]


def setup_lines(job: JobDir, site: Site) -> list[str]:
    """What happens on the first node before the ranks start."""
    # Before anything of it runs: who can rename the folders above could put another in its place.
    lines = ["umask 077", f"[ -O {shlex.quote(str(job.root))} ] || {{ {_NOT_OURS}; }}"]
    lines += software_lines(site)
    lines += [
        sources_line(job.code),
        # On a node that of the job alone is asked, without the database that knows the others.
        "unset SLURM_CLUSTERS",
        # Else the folder that one submits from would come before the copy.
        "export PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE",
        f"{_python()} -m launcher.guard {shlex.quote(str(job.root))} || exit 2",
        # The shell outlives what stops the ranks, to say how they ended.
        "trap : INT TERM USR2",
    ]
    return lines


def software_lines(site: Site) -> list[str]:
    """Modules and variables of a site; what is started after them has them."""
    lines = []
    if site.modules_init:
        lines.append(f"source {shlex.quote(site.modules_init)} || {{ {_FAILED}; }}")
    for module in site.modules:
        lines.append(f"module load {shlex.quote(module)} || {{ {_FAILED}; }}")
    return lines + [f"export {name}={shlex.quote(value)}" for name, value in site.variables.items()]


def sources_line(folder: Path) -> str:
    """By which Python finds the modules in ``folder`` before all others."""
    return f"export PYTHONPATH={shlex.quote(str(folder))}${{PYTHONPATH:+:$PYTHONPATH}}"


def teardown_lines(job: JobDir) -> list[str]:
    """What happens when the ranks have ended."""
    folder = shlex.quote(str(job.root))
    return ["status=$?", f'{_python()} -m launcher.inside.verdict {folder} "$status"', ""]


def _python() -> str:
    return shlex.quote(sys.executable)


def submitted_script(executor: Executor, job_number: str) -> Path:
    """The script as submitit wrote it when it submitted."""
    return Path(executor.folder) / f"{job_number.split('_')[0]}_submission.sh"
