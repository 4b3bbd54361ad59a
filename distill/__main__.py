"""`python -m distill` is the command `pairdistill`."""

from __future__ import annotations

import sys

from distill.processes.interrupt import INTERRUPTED, interrupted, watch_for_interrupts
from distill.processes.leave import run_and_leave
from distill.processes.streams import open_closed_streams


def main() -> None:
    """Run the command line as all that this process does (`distill.processes.leave`)."""
    open_closed_streams()
    watch_for_interrupts()
    run_and_leave(_run)


def _run() -> None:
    """The command line; Ctrl-C becomes one line and status 130 from the first import on."""
    try:
        from distill.cli.app import main as run

        run()
    except (Exception, KeyboardInterrupt, SystemExit):
        if not interrupted():
            raise
        sys.stderr.write("error: interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
