"""Measuring a classifier on held-out photographs, clean and processed in each way."""

from distill.evaluate.folder import read_report, write_report
from distill.evaluate.report import Report, scalars
from distill.evaluate.run import evaluate

__all__ = ["Report", "evaluate", "read_report", "scalars", "write_report"]
