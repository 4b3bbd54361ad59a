"""Which photographs of a training pack are probably of somebody else, and who is there twice.

centres   rows of a head, a range at a time
compare   embeddings and people against all centres
votes     what every photograph says, in files of the ranks, and which sub-centre is dominant
suspects  the lists that are written
summary   what of it a reader is told first
run       the story
"""

from distill.audit.run import Asked, audit
from distill.audit.summary import Summary

__all__ = ["Asked", "Summary", "audit"]
