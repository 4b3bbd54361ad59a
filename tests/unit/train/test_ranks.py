"""Who a process is, and the small collectives, alone and over two real processes."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import termios
from pathlib import Path

import pytest
import torch

from distill import gpus
from distill import ranks as places
from distill.collectives import (
    all_reduce_max,
    all_reduce_sum,
    barrier,
    from_first,
    gather_objects,
    together,
)
from distill.config import load_config
from distill.errors import UserError
from distill.processes.spawn import LISTEN_FD
from distill.ranks import (
    Ranks,
    from_environment,
    init_process_group,
    leave_process_group,
    threads_per_rank,
    why_unseen,
)

CPU = load_config(None, ["run.device=cpu"])
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}


def test_nothing_set_is_a_job_of_one_rank() -> None:
    ranks = from_environment(CPU, {"PATH": "/bin", "MASTER_ADDR": "left over"})
    assert (ranks.rank, ranks.world_size, ranks.local_rank) == (0, 1, 0)
    assert ranks.is_first
    assert ranks.device.type == "cpu"


SRUN = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0", "SLURM_STEP_ID": "3"}


def test_tasks_of_srun_that_each_do_all_of_the_work_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert from_environment(CPU, SRUN).world_size == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "srun has started 8 tasks, and each of them does all" in told and "--ranks" in told
    ranks = dict(zip(TORCHRUN, ("0", "2", "0", "2", "node1", "1"), strict=True))
    for other in ({"SLURM_PROCID": "1"}, {"SLURM_STEP_NUM_TASKS": "1"}, ranks):
        from_environment(CPU, SRUN | other)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("in_shell", [True, False])
def test_a_shell_of_srun_is_one_task_and_what_srun_starts_in_it_is_not(
    monkeypatch: pytest.MonkeyPatch, in_shell: bool
) -> None:
    monkeypatch.setattr(places, "warn", lambda _: os._exit(7))
    process, terminal = pty.fork()
    if not process:
        try:
            if not in_shell:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                fcntl.ioctl(0, termios.TIOCNOTTY)
            from_environment(CPU, SRUN | {"SLURM_PTY_PORT": "34492"})
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == (0 if in_shell else 7)


def test_torchrun_variables() -> None:
    ranks = from_environment(CPU, TORCHRUN)
    assert ranks == Ranks(3, 4, 1, 2, torch.device("cpu"))
    assert not ranks.is_first


@pytest.mark.parametrize("missing", sorted(TORCHRUN))
def test_a_partial_environment_names_what_is_missing(missing: str) -> None:
    environment = {name: value for name, value in TORCHRUN.items() if name != missing}
    with pytest.raises(UserError, match=f"^{missing} is missing"):
        from_environment(CPU, environment)


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "4"), ("RANK", "-1"), ("LOCAL_RANK", "2"), ("WORLD_SIZE", "two"), ("RANK", "")],
)
def test_numbers_that_do_not_fit(name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"^{name} = "):
        from_environment(CPU, TORCHRUN | {name: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_asked_for_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"run.device = 'cuda': torch sees no CUDA device: torch "):
        from_environment(load_config(None, ["run.device=cuda"]), {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_torch_says_itself_why_it_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a driver that is too old how old it is, without the advice for laptops after that."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    said = "The NVIDIA driver on your system is too old (found version 12020). Please update"

    def init() -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.cuda, "init", init)
    old = "The NVIDIA driver on your system is too old (found version 12020)"
    assert why_unseen() == f"torch {torch.__version__}: {old}"


def test_gpus_are_known_by_their_devices_where_no_driver_says_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "none")
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert gpus.here() == ""
    (tmp_path / "nvidia3").touch()
    assert gpus.here() == "/dev/nvidia3"


def test_threads_are_divided_among_local_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    two = Ranks(0, 4, 0, 2, torch.device("cpu"))
    assert threads_per_rank(CPU, two) == 4
    many = Ranks(0, 16, 0, 16, torch.device("cpu"))
    assert threads_per_rank(CPU, many) == 1
    assert threads_per_rank(load_config(None, ["run.threads_per_rank=3"]), many) == 3


@pytest.mark.parametrize(
    ("usable", "on_node", "spawned", "threads"),
    [
        (8, 64, False, 8),  # srun --cpus-per-task=8, or bound by the launcher
        (64, 64, False, 8),  # a step whose tasks are not confined
        (8, 8, False, 1),  # torchrun in a task of eight cores
        (9, 65, False, 9),  # of 65 cores one task has one more
        (8, 64, True, 1),  # `--ranks 8` in a task of eight
        (16, 0, False, 2),
    ],
)
def test_cores_that_are_a_share_already_are_not_divided_again(
    monkeypatch: pytest.MonkeyPatch, usable: int, on_node: int, spawned: bool, threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(usable)))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", str(on_node))
    if spawned:
        monkeypatch.setenv(LISTEN_FD, "3")
    assert threads_per_rank(CPU, Ranks(1, 16, 1, 8, torch.device("cpu"))) == threads


def check_collectives_of_one() -> None:
    values = torch.tensor([1.0, -2.0])
    reduced = all_reduce_sum(values)
    assert torch.equal(reduced, values)
    assert reduced is not values
    assert torch.equal(all_reduce_max(values), values)
    assert gather_objects({"a": [1, None, "é\n"]}) == [{"a": [1, None, "é\n"]}]
    assert from_first({"a": (1, None, "é\n")}) == {"a": [1, None, "é\n"]}
    barrier()
    with together():
        pass
    with pytest.raises(UserError, match="mine"), together():
        raise UserError("mine")


def test_collectives_without_a_process_group() -> None:
    check_collectives_of_one()


def test_collectives_in_a_group_of_one() -> None:
    init_process_group(CPU, from_environment(CPU, {}))
    try:
        check_collectives_of_one()
    finally:
        leave_process_group()
    leave_process_group()
