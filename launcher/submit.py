"""From a configuration and a request to a job in the queue, and a folder with all of it."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError

from distill.config import Config, dump_toml
from distill.errors import UserError, told_of
from distill.files import disk_error, disk_errors, write_whole
from distill.run_dir import JobDir, RunDir
from launcher import slurm
from launcher.entry import Entry
from launcher.guard import check_private
from launcher.here import begin_here, run_here
from launcher.jobfile import JobFile
from launcher.resources import Resources
from launcher.script import Executor, make_executor, submitted_script
from launcher.site import Site
from launcher.snapshot import take_snapshot
from launcher.submitted import Submitted

CLUSTERS = ("slurm", "local", "debug")


@dataclass(frozen=True)
class Request:
    """What is to be submitted.

    Attributes:
        config: settings with absolute paths, see `absolute`.
        wanted: resources.
        site: the cluster's profile.
        cluster: one of `CLUSTERS`.
    """

    config: Config
    wanted: Resources
    site: Site
    cluster: str

    @property
    def run(self) -> RunDir:
        """The run folder."""
        return RunDir(Path(self.config.run.dir))


def absolute(config: Config) -> Config:
    """The settings with paths that mean the same wherever the job runs."""
    moved = config.with_packs(lambda pack: str(Path(pack).absolute()))
    lists = [str(Path(path).absolute()) for path in config.data.exclude_lists]
    data = moved.data.model_copy(update={"exclude": lists})
    sets = [str(Path(path).absolute()) for path in config.evaluate.set_paths]
    evaluate = config.evaluate.model_copy(update={"sets": sets})
    run = config.run.model_copy(update={"dir": str(Path(config.run.dir).absolute())})
    model = config.model
    if model.init_from:
        model = model.model_copy(update={"init_from": str(Path(model.init_from).absolute())})
    changed = {"run": run, "data": data, "model": model, "evaluate": evaluate}
    return moved.model_copy(update=changed)


def submit(request: Request) -> Submitted:
    """Prepare the folder and hand the job over.

    Raises:
        UserError: the folder cannot be written, or the cluster refuses; its reason is shown, and
            nothing is left of the submission.
    """
    job = prepare(request)
    if request.cluster == "slurm":
        number = submit_to_slurm(request, job)
    elif request.cluster == "local":
        number = begin_here(job, request.wanted, request.site)
    else:
        number = run_here(job)
    done = Submitted(number, request.cluster, str(job.slurm), time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    with not_noted(number):
        done.write(job)
    return done


def not_noted(number: str) -> AbstractContextManager[None]:
    """Errors of the block name a job that is there, and will run, though its folder is not told."""
    return told_of(f"job {number} was submitted, which its folder does not know")


def prepare(request: Request) -> JobDir:
    """The folder of a new submission, with all that the job needs."""
    job = request.run.next_job()
    with private(job):
        write_job(request, job, take_snapshot(job), job.slurm)
    return job


@contextmanager
def private(job: JobDir) -> Iterator[None]:
    """The folders of a submission, for this user alone; gone again where the block fails.

    Raises:
        UserError: they cannot be written.
    """
    with disk_errors(job.root):
        _make_private(job)
        try:
            yield
        except BaseException:
            discard(job)
            raise


def _make_private(job: JobDir) -> None:
    run = job.root.parents[1]
    run.parent.mkdir(parents=True, exist_ok=True)
    for folder in (run, job.root.parent, job.root, job.slurm):
        folder.mkdir(mode=0o700, exist_ok=folder != job.root)
    check_private(run)


def write_job(request: Request, job: JobDir, code_digest: str, logs: Path) -> None:
    """What the job reads: its settings, and what is to be checked."""
    write_whole(job.config_toml, dump_toml(request.config).encode())
    JobFile(
        run=request.config.run.dir,
        config=str(job.config_toml),
        code_digest=code_digest,
        world_size=request.wanted.world_size,
        gpus_per_node=request.wanted.gpus_per_node,
        logs=str(logs),
        scratch=request.site.scratch,
        min_allreduce_gb_per_s=request.site.min_allreduce_gb_per_s,
        max_clock_skew_seconds=request.site.max_clock_skew_seconds,
    ).write(job.job_json)


def dry_run(request: Request) -> str:
    """The script that `submit` would hand over, to the letter; nothing is written."""
    job = request.run.next_job()
    return make_executor(job, request.run.root.name, request.wanted, request.site).script_text()


def submit_to_slurm(request: Request, job: JobDir) -> str:
    """Hand a prepared job to Slurm; its number."""
    executor = make_executor(job, request.run.root.name, request.wanted, request.site)
    (number,) = hand_over(executor, [Entry(str(job.job_json))], job)
    keep_script(executor, number, job)
    return number


def hand_over(executor: Executor, entries: Sequence[Entry], job: JobDir) -> list[str]:
    """Submit entries as a job, or several as an array; their numbers.

    Raises:
        UserError: sbatch refuses, in its words, or files for it cannot be written; then there is
            no job, and its folder is gone.
    """
    said = io.StringIO()  # submitit prints what sbatch says, and raises it too
    try:
        with slurm.clean_environment(), redirect_stderr(said), executor.batch():
            jobs = [executor.submit(entry) for entry in entries]
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        discard(job)
        raise UserError(
            f"Slurm refuses the job: {' '.join(lines)}", fix="ask for what the cluster can give"
        ) from error
    except OSError as error:
        if not _is_before_sbatch(error, job):
            raise
        discard(job)
        raise disk_error(job.root, error) from error
    return [str(done.job_id) for done in jobs]


def _is_before_sbatch(error: OSError, job: JobDir) -> bool:
    """Whether submitit failed while it wrote files: after sbatch it does no more than rename them.

    The script is the first, to a name with the job's number.
    """
    return error.filename2 is None and not any(job.slurm.glob("*_submission.sh"))


def keep_script(executor: Executor, number: str, job: JobDir) -> None:
    """Copy the script of a job that was submitted to where people look for it.

    Raises:
        UserError: it cannot be written; the job goes on without.
    """
    with not_noted(number):
        write_whole(job.script, submitted_script(executor, number).read_bytes())


def discard(job: JobDir) -> None:
    """Leave nothing of a submission that was refused."""
    shutil.rmtree(job.root)
    for folder in (job.root.parent, job.root.parents[1]):
        if not any(folder.iterdir()):
            folder.rmdir()
