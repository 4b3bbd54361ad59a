"""`python -m distill` is the command `pairdistill`."""

from distill.cli.app import main

if __name__ == "__main__":
    main()
