"""How many scans the image in a JPEG file has, by its markers (ITU-T T.81, annex B)."""

from __future__ import annotations

import re

_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
"""A marker where one should stand: any number of fill bytes may precede it."""
_AFTER_CODED_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The marker that ends coded data, in which 0xff is followed by 0 or by a restart marker."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment: TEM, restarts, the start of an image."""
_MOST_MARKERS = 10_000
"""Markers that are looked at one by one; the largest file that is read has half as many of use."""


def scans_of(data: bytes) -> int:
    """Scans of the first image in a file.

    Segments are passed over whole and what follows the image is not looked at: in thumbnails, in
    what cameras write for themselves and in the films that phones put behind a photograph, the
    bytes of a scan's marker come up by chance. Where no marker stands where one should, or after
    too many of them, all that looks like a scan from there on counts.
    """
    count, place = 0, 0
    for _ in range(_MOST_MARKERS):
        found = _MARKER.match(data, place)
        if found is None:
            break
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return count
        if marker in _ALONE:
            continue
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
        if marker == _START_OF_SCAN:
            count += 1
            behind = _AFTER_CODED_DATA.search(data, place)
            place = behind.start() if behind else len(data)
    return count + data.count(_SCAN, place)
