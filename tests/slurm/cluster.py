"""A Slurm of two nodes on this machine, for tests: started and ended as one process.

Everything runs in namespaces of its own, below one `unshare`. That one is killed by the kernel when
the tests end, even by `kill -9`, and takes all processes, networks and mounts with it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

KEEPER = Path(__file__).with_name("keeper.py")
PROGRAMS = (
    *("slurmctld", "slurmd", "slurmdbd", "sbatch", "sacct", "munged", "mariadbd"),
    *("mariadb-install-db", "ip", "nsenter", "unshare"),
)
_PR_SET_PDEATHSIG = 1


def reason_to_skip() -> str:
    """Why no cluster can be started here; empty where it can."""
    if os.environ.get("PAIRDISTILL_TEST_SLURM") != "1":
        return "needs a Slurm test cluster: `make test-slurm` starts one"
    if os.geteuid() != 0:
        return "needs root: a Slurm test cluster lives in network namespaces"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"needs a Slurm test cluster; not installed here: {', '.join(missing)}"
    return ""


class Cluster:
    """The running cluster.

    Attributes:
        base: folder of its configuration, state and logs.
        environment: what its clients need to find it.
    """

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="pd-slurm-"))
        self.base.chmod(0o755)
        self.environment = {"SLURM_CONF": str(self.base / "etc" / "slurm.conf")}
        separate = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        self.process = subprocess.Popen(
            ["unshare", *separate, sys.executable, str(KEEPER), str(self.base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_die_with_us,
        )
        try:
            self._expect("ready")
        except BaseException:
            self.stop()
            raise

    def _expect(self, answer: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line == answer, f"the cluster said {line!r} in place of {answer!r}\n{self.logs()}"

    def logs(self) -> str:
        """The end of every log, for a failed test."""
        files = sorted((self.base / "log").glob("*")) if (self.base / "log").is_dir() else []
        ends = [(file.name, file.read_text(errors="replace").splitlines()[-15:]) for file in files]
        return "\n".join(f"== {name}\n" + "\n".join(lines) for name, lines in ends)

    def order(self, line: str) -> None:
        """An order of `keeper.py`, such as `crash NODE`; returns when it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self._expect("done")

    @property
    def keeper_pid(self) -> int:
        """Process 1 of the cluster, as seen from outside."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def inside(self, argv: Sequence[str]) -> list[str]:
        """``argv`` such that it runs where the cluster is, in the present folder."""
        here = f"--wd={Path.cwd()}"
        return ["nsenter", f"--target={self.keeper_pid}", "-n", "-m", "-p", here, "--", *argv]

    def run(
        self, *argv: str, timeout: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a client of the cluster to its end."""
        return subprocess.run(
            self.inside(argv),
            env={**os.environ, **self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def output(self, *argv: str) -> str:
        """What a client writes; it must succeed."""
        done = self.run(*argv)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout.strip()

    def stop(self) -> None:
        """End everything, at once, and remove the folder."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self.base, ignore_errors=True)


def _die_with_us() -> None:
    """Ask the kernel to kill the cluster when the tests end in whatever way (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
