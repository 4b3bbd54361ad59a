"""Checkpoints in a format of our own: safetensors shards under a JSON manifest.

    CHECKPOINTS/
        step-00001000/
            manifest.json                        what it is, and the digest of every byte
            shard-00000-of-00002.safetensors     rank 0's share, and the buffers
            shard-00001-of-00002.safetensors     rank 1's share

Each parameter, and each moment the optimizer keeps of it, stands whole and in float32 in exactly
one shard, whatever the ZeRO stage: so any stage on any number of ranks can read it, and so can a
program that knows nothing of ranks. Of a class-sharded head each rank writes its own rows, under
keys that say which they are, and the manifest has all ranges. DeepSpeed's own checkpoints are
pickles, tied to stage and number of ranks. Nothing here is ever unpickled.
"""

from distill.checkpoint.find import Found, latest_verified
from distill.checkpoint.load import load
from distill.checkpoint.manifest import Manifest
from distill.checkpoint.retention import prune
from distill.checkpoint.save import add_metrics, save
from distill.checkpoint.space import check_space
from distill.checkpoint.start import Start, check_start, start_from
from distill.checkpoint.state import RunFacts, SaveFailed, TrainState
from distill.checkpoint.stored import Stored, open_weights
from distill.checkpoint.weights import export_weights

__all__ = [
    "Found",
    "Manifest",
    "RunFacts",
    "SaveFailed",
    "Start",
    "Stored",
    "TrainState",
    "add_metrics",
    "check_space",
    "check_start",
    "export_weights",
    "latest_verified",
    "load",
    "open_weights",
    "prune",
    "save",
    "start_from",
]
