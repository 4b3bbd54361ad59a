"""A process inside the cluster that has imported what commands import, and forks them; no test.

What a start from nothing does is shown by the command that a job runs to submit another.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ranks"))
from forked import serve

from distill.cli.app import build_app

if __name__ == "__main__":
    build_app()  # imports the launcher
    serve()
