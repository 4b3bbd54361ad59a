"""Helpers beside the tests: writers of every format, from the descriptions of the formats."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
