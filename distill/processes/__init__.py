"""Processes of this program: how they start, are stopped, are watched, fail and end."""
