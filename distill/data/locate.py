"""Where the face of a photograph is: what the source says, what a detector finds, the template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from distill.data.detector import FaceDetector
from distill.data.faces import FACE_SIZE, TEMPLATE, AlignedFace, align_face
from distill.data.images import Pixels, Unusable

LandmarkChoice = Literal["auto", "source", "detector", "template"]
"""`source`: the points that come with a sample; `detector`: of the most prominent face found;
`template`: the image is a face on the template already; `auto`: `source` where there are points,
else `detector`."""


def locate(
    rgb: Pixels,
    choice: LandmarkChoice,
    given: Sequence[tuple[float, float]] | None,
) -> tuple[AlignedFace, str]:
    """The face of a photograph on the template, and a note, which may be empty.

    Args:
        rgb: (H, W, 3) uint8, upright.
        choice: where the points come from.
        given: five points of the source in pixels, or None.

    Raises:
        Unusable: no points where they are asked for, points that are no face, an image of another
            size than the template's, no face found.
    """
    if choice == "template":
        return as_aligned(rgb)
    if choice == "source" and given is None:
        raise Unusable("the source gives no landmarks")
    if choice != "detector" and given is not None:
        return _at_points(rgb, given), ""
    return find_face(rgb)


def as_aligned(rgb: Pixels) -> tuple[AlignedFace, str]:
    """An image that is a face on the template already.

    Raises:
        Unusable: another size.
    """
    height, width = rgb.shape[:2]
    if (height, width) != (FACE_SIZE, FACE_SIZE):
        raise Unusable(f"{width}x{height}, not an aligned {FACE_SIZE}x{FACE_SIZE} face")
    return AlignedFace(rgb, TEMPLATE.copy()), ""


def find_face(rgb: Pixels) -> tuple[AlignedFace, str]:
    """The face that a photograph is of, aligned; and a note where there are several.

    Raises:
        Unusable: no face.
    """
    found = FaceDetector().foremost(rgb)
    if found is None:
        raise Unusable("no face found")
    face, count = found
    note = f"{count} faces, the most prominent taken" if count > 1 else ""
    return align_face(rgb, face.points), note


def _at_points(rgb: Pixels, given: Sequence[tuple[float, float]]) -> AlignedFace:
    """The face at the source's points.

    Raises:
        Unusable: not five finite points, or on one spot, mirrored, or outside the photograph.
    """
    points = np.asarray(given, np.float32)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise Unusable("landmarks are not five finite points")
    height, width = rgb.shape[:2]
    centre = points.mean(axis=0)
    if not (0 <= centre[0] < width and 0 <= centre[1] < height):
        raise Unusable("landmarks lie outside the photograph")
    across, down = points[1] - points[0], points[3:].mean(axis=0) - points[:2].mean(axis=0)
    if across[0] * down[1] - across[1] * down[0] <= 0:
        raise Unusable("landmarks are mirrored: left and right are as the viewer sees them")
    return align_face(rgb, points)
