"""Slurm's clients as shell scripts with fixed answers."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """\
#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done >> '{folder}/{name}.calls'
cat '{folder}/{name}.answer'
cat '{folder}/{name}.errors' >&2
exit "$(cat '{folder}/{name}.status')"
"""


class FakeSlurm:
    """Clients in a folder that is first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answers(self, name: str, answer: str = "", *, errors: str = "", status: int = 0) -> None:
        """From now on the client ``name`` writes this."""
        (self.folder / f"{name}.answer").write_text(answer)
        (self.folder / f"{name}.errors").write_text(errors)
        (self.folder / f"{name}.status").write_text(str(status))
        script, text = self.folder / name, SCRIPT.format(folder=self.folder, name=name)
        # A program that is written while another thread forks cannot be run: "Text file busy".
        if not script.exists() or script.read_text() != text:
            script.write_text(text)
            script.chmod(0o755)

    def hides(self, name: str) -> None:
        """What the client ``name`` has to say is in hidden partitions: it says that to ``-a``."""
        script = self.folder / name
        rest = script.read_text().removeprefix("#!/bin/sh\n")
        script.write_text(f'#!/bin/sh\ncase " $* " in *" -a "*) ;; *) exit;; esac\n{rest}')

    def calls(self, name: str) -> list[str]:
        """All words that a client was called with."""
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def queue(self, *jobs: str, restarts: int = 0) -> None:
        """The controller has jobs, `12|RUNNING|None|node1`, started again so often."""
        self.answers("squeue", "".join(f"{job}\n" for job in jobs))
        script = self.folder / "squeue"
        rest = script.read_text().removeprefix("#!/bin/sh\n")
        counted = f'case "$*" in *RestartCnt*) echo "{restarts}      "; exit;; esac\n'
        script.write_text(f"#!/bin/sh\n{counted}{rest}")

    def cluster(self) -> None:
        """A cluster of two nodes with 4 cores, 8 GB and 2 GPUs each, and one account."""
        self.answers("sinfo", "test*\nhigh\n")
        script = self.folder / "sinfo"
        node = "2|4|8000|gpu:a100:2(S:0-1)|1-00:00:00"
        nodes = f"echo 'test|{node}'; echo 'high|{node}'"
        script.write_text(
            f"#!/bin/sh\ncase \"$*\" in *%D*) {nodes};; *) echo 'test*'; echo high;; esac\n"
        )
        self.answers("sacctmgr", "face\nroot\n")
        self.answers("sacct")
        self.queue()
        self.answers("srun")
        self.answers("sbatch", "Submitted batch job 12\n")
