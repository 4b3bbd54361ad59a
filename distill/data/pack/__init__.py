"""Photographs in, a pack of pairs out.

build     the story: survey, split, make, store, rename
options   what may be chosen
standing  what is at the place already
photos    first round: which photographs can be used
enough    whether they are enough to go on with
source_digest  by which a source is known again
parts     second round: pairs, tables and pictures of one pack
work      what worker processes do
scratch   the folder in which a pack grows
journal   what the first round found, for a packer that goes on after a kill
resume    shards that are finished, likewise
spool     aligned faces on disk, between the rounds
tables    rejected.csv and pairs.csv
"""

from distill.data.pack.build import pack
from distill.data.pack.options import DEFAULT_KINDS, PackOptions, PackResult
from distill.data.sources.open import open_source

__all__ = ["DEFAULT_KINDS", "PackOptions", "PackResult", "open_source", "pack"]
