"""FFCV's import: quick, and with nothing changed around it."""

import subprocess
import sys

IMPORT = """
import torch
from numba import config, njit

@njit
def before(x):
    return x + 1

torch.set_num_threads(3)
from distill.data.ffcv_import import import_ffcv
import_ffcv()
from ffcv.fields.rgb_image import IMAGE_MODES
from distill.data import decoder
from distill.data.ffcv_reader import FFCVReader
from numba.typed import Dict

assert type(IMAGE_MODES) is dict and IMAGE_MODES == {"jpg": 0, "raw": 1}, "compiled by the import"
assert before.signatures == [], "nothing else is compiled either"
assert torch.get_num_threads() == 3
assert not config.DISABLE_JIT
assert hasattr(decoder.read_pairs, "py_func"), "our own loops are compiled ones"
assert type(Dict()) is Dict and hasattr(Dict.__setitem__.__globals__["_setitem"], "py_func")
"""


def test_import_compiles_nothing_and_changes_nothing():
    subprocess.run([sys.executable, "-c", IMPORT], check=True, timeout=600)
