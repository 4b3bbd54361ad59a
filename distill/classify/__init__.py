"""Naming the people in photographs."""

from distill.classify.answers import Answer, answers_of, ask, classify
from distill.classify.output import FORMATS, rendered
from distill.classify.photographs import find_photographs

__all__ = ["FORMATS", "Answer", "answers_of", "ask", "classify", "find_photographs", "rendered"]
