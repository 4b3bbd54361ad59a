"""How near to the bare face the removal of glasses comes: with our frames, and with others'.

Each frontal face of openpeople gets three of our drawn frames and one pair of an illustrator's
spectacles (see `fit_frame_finder.py`, whose packages it needs too). Printed for each: on how many
frames were taken off, the mean distance to the bare face over the eye band in grey levels before
and after, and on what share of them it fell. Filled brows and eyes count against it. Some minutes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from fit_frame_finder import (
    DRAWINGS,
    frontal_faces,
    spectacles,
    with_our_frames,
    with_their_frames,
)

from distill.data.faces import AlignedFace
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, make_second
from distill.data.second.frame_finder import plane
from distill.data.second.pixels.lens import BAND_BOTTOM, BAND_TOP


def main() -> None:
    """Prints one line for each hand."""
    people = [face for _, face in frontal_faces()]
    art = list(spectacles())
    ours = ((f, with_our_frames(f, i, d)) for i, f in enumerate(people) for d in range(DRAWINGS))
    _report("our frames", ours)
    _report("others' spectacles", ((f, with_their_frames(f, art, i)) for i, f in enumerate(people)))


def _report(name: str, cases: Iterable[tuple[AlignedFace, AlignedFace]]) -> None:
    options, seen, distances = SecondOptions(glasses="remove"), 0, []
    for bare, worn in cases:
        seen += 1
        rgb, how = make_second("glasses", worn, keyed_rng(0), options=options)
        if how == "glasses: frames removed":
            distances.append([_distance(bare, worn.rgb), _distance(bare, rgb)])
    before, after = np.array(distances).T
    nearer = (after < before).mean()
    print(f"{name}: removed from {len(before)} of {seen};", end=" ")
    print(f"{before.mean():.2f} before, {after.mean():.2f} after; nearer on {nearer:.0%}")


def _distance(bare: AlignedFace, rgb: np.ndarray) -> float:
    """Mean absolute difference over the eye band."""
    p = plane(bare)
    rows, columns = np.mgrid[: p.size, : p.size].astype(np.float64)
    offset = np.stack([columns - p.ox, rows - p.oy], axis=-1)
    x, y = np.moveaxis(offset @ np.linalg.inv(np.array([[p.ux, p.uy], [-p.uy, p.ux]])), -1, 0)
    here = (np.abs(x) < 1.2) & (y > BAND_TOP) & (y < BAND_BOTTOM)
    return float(np.abs(rgb.astype(float) - bare.rgb)[here].mean())


if __name__ == "__main__":
    main()
