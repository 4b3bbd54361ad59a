"""The launcher's commands, one file each; `distill.cli.app` finds them as entry points."""
