"""`python -m distill` is the command `pairdistill`."""

from __future__ import annotations

import sys

from distill.interrupt import INTERRUPTED, interrupted, watch_for_interrupts


def main() -> None:
    """Run the command line; Ctrl-C becomes one line and status 130 from the first import on."""
    watch_for_interrupts()
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
