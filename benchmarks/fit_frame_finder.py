"""Fits the frame finder's regression on drawn frames, and measures it on frames by other hands.

It prints the constants for distill/data/second/frame_finder.py, and how well a fit on nine people
judges the tenth: with our own frames, and with the spectacles of illustrators (the styles
adventurer, lorelei and notionists of dicebear, those with clear lenses) in random colours, sizes
and places, which share neither code nor shape nor line with what the finder was fitted on. About
5 minutes on one core. Needs openpeople, and `pip install dicebear-styles==10.6.0 resvg-py==0.5.0`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import resvg_py
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from distill.data.detector import FaceDetector
from distill.data.faces import AlignedFace, align_face
from distill.data.images import decode
from distill.data.keyed import keyed_rng
from distill.data.second import SecondOptions, process
from distill.data.second.frame_finder import MAX_TURN, features_of, plane
from distill.data.sources.openpeople import OpenPeopleSource

DRAWINGS = 3
"""Different frames of our own drawn on each face."""
ARTISTS = ("adventurer", "lorelei", "notionists")
"""Styles whose spectacles are seen from the front."""
Person = tuple[str, AlignedFace]


def main() -> None:
    """Prints AUC, recall and false positives, then the constants; for colour and for grey."""
    people = frontal_faces()
    art = list(spectacles())
    print(f"{len(people)} faces, {len(art)} spectacles by {', '.join(ARTISTS)}")
    for name, grey in (("_COLOUR", False), ("_GREY", True)):
        bare = _features([(who, f) for who, f in people], grey)
        own = _features(
            [
                (w, with_our_frames(f, i, d))
                for i, (w, f) in enumerate(people)
                for d in range(DRAWINGS)
            ],
            grey,
        )
        theirs = _features(
            [(w, with_their_frames(f, art, i)) for i, (w, f) in enumerate(people)], grey
        )
        _report(name, bare, own, theirs, [who for who, _ in people])


def _report(name: str, bare: Any, own: Any, theirs: Any, who: list[str]) -> None:
    """Each person judged by a fit on the other nine; then a fit on all."""
    labels = np.array(who)
    answers: dict[str, list[np.ndarray]] = {"bare": [], "own": [], "theirs": []}
    for person in sorted(set(who)):
        out = labels == person
        model = _fit(bare[~out], own[np.repeat(~out, DRAWINGS)])
        answers["bare"].append(model.predict_proba(bare[out])[:, 1])
        answers["own"].append(model.predict_proba(own[np.repeat(out, DRAWINGS)])[:, 1])
        answers["theirs"].append(model.predict_proba(theirs[out])[:, 1])
    told = {key: np.concatenate(values) for key, values in answers.items()}
    print(f"{name}: false positives {(told['bare'] > 0.5).mean():.3f}")
    for key in ("own", "theirs"):
        wears = np.repeat([0, 1], [len(told["bare"]), len(told[key])])
        auc = roc_auc_score(wears, np.concatenate([told["bare"], told[key]]))
        print(f"  {key}: AUC {auc:.3f}, recall {(told[key] > 0.5).mean():.3f} of {len(told[key])}")
    scaler, regression = (step for _, step in _fit(bare, own).steps)
    weights = regression.coef_[0] / scaler.scale_
    print(f"{name} = _Regression(", tuple(np.round(scaler.mean_, 3).tolist()), end=", ")
    print(tuple(np.round(weights, 2).tolist()), round(float(regression.intercept_[0]), 3), ")")


def _fit(bare: Any, worn: Any) -> Any:
    wears = np.repeat([0, 1], [len(bare), len(worn)])
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    return model.fit(np.concatenate([bare, worn]), wears)


def frontal_faces() -> list[Person]:
    """The frontal faces with their people."""
    faces = []
    for sample in OpenPeopleSource():
        rgb = decode(sample.read())
        face = align_face(rgb, FaceDetector().detect(rgb)[0].points)
        if abs(plane(face).turn) <= MAX_TURN:
            faces.append((sample.identity, face))
    return faces


def _features(faces: list[Person], grey: bool) -> np.ndarray:
    return np.array([features_of(_grey(face) if grey else face) for _, face in faces])


def _grey(face: AlignedFace) -> AlignedFace:
    luma = cv2.cvtColor(face.rgb, cv2.COLOR_RGB2GRAY)
    return AlignedFace(np.repeat(luma[..., None], 3, axis=2), face.points)


def with_our_frames(face: AlignedFace, number: int, drawing: int) -> AlignedFace:
    """The face with frames as `glasses` draws them, others for each number and drawing."""
    options = SecondOptions(glasses="draw", sunglasses=0.2)
    key = ("fit frames", number, drawing)
    return process(["glasses"], face, lambda _: keyed_rng(*key), options=options)[0]


def spectacles() -> Iterator[str]:
    """SVG of each spectacles, with RIM where its colour goes."""
    spec = find_spec("dicebear_styles")
    assert spec is not None and spec.submodule_search_locations, "pip install dicebear-styles"
    for style in ARTISTS:
        path = Path(spec.submodule_search_locations[0]) / f"{style}.json"
        part = json.loads(path.read_text())["components"]["glasses"]
        for variant in part["variants"].values():
            body = "".join(map(_markup, variant["elements"]))
            size = f'width="{part["width"]}" height="{part["height"]}"'
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{body}</svg>'
            if _lenses(_rendered(svg.replace("RIM", "#000000"))):  # the rest are sunglasses
                yield svg


def _markup(element: dict[str, Any]) -> str:
    """One element of a style as SVG."""
    values = {
        name: "RIM" if isinstance(value, dict) or (name == "fill" and value != "none") else value
        for name, value in element.get("attributes", {}).items()
    }
    if element["name"] == "path" and not {"fill", "stroke"} & set(values):
        values["fill"] = "RIM"
    attributes = " ".join(f"{name}={quoteattr(str(value))}" for name, value in values.items())
    inner = "".join(map(_markup, element.get("children", [])))
    return f"<{element['name']} {attributes}>{inner}</{element['name']}>"


def _rendered(svg: str) -> np.ndarray:
    """RGBA, float32."""
    encoded = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    bgra = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA).astype(np.float32)


def _lenses(rgba: np.ndarray) -> tuple[np.ndarray, ...]:
    """Middles of the two largest holes, from left to right; of one with fewer, none."""
    clear = np.pad((rgba[..., 3] < 60).astype(np.uint8), 1, constant_values=1)
    _, _, stats, middles = cv2.connectedComponentsWithStats(clear, connectivity=4)
    inside = [i for i in range(1, len(stats)) if stats[i, 0] > 0 and stats[i, 1] > 0]
    inside = sorted(inside, key=lambda i: -stats[i, cv2.CC_STAT_AREA])[:2]
    if len(inside) < 2 or stats[inside[1], 4] < 0.6 * stats[inside[0], 4]:
        return ()
    return tuple(sorted((middles[i] - 1 for i in inside), key=lambda xy: float(xy[0])))


def with_their_frames(face: AlignedFace, art: list[str], number: int) -> AlignedFace:
    """An illustrator's spectacles in a random colour, over the eyes."""
    rng = keyed_rng("their frames", number)
    p = plane(face)
    bright, tint = rng.uniform(15, 170), rng.uniform(-30, 30, 3)
    red, green, blue = np.clip(bright + tint, 0, 255).astype(int).tolist()
    svg = art[int(rng.integers(len(art)))].replace("RIM", f"#{red:02x}{green:02x}{blue:02x}")
    rgba = _rendered(svg)
    left, right = _lenses(rgba)
    scale = rng.uniform(0.98, 1.12) * p.unit / (right[0] - left[0])
    middle = (left + right) / 2
    axes = np.array([[p.ux, -p.uy], [p.uy, p.ux]]) / p.unit * scale
    aim = np.array([p.ox, p.oy]) + rng.uniform(0.02, 0.12) * np.array([-p.uy, p.ux])
    matrix = np.hstack([axes, (aim - axes @ middle)[:, None]])
    # Drawn four times larger and reduced, as the warp alone would alias.
    large = cv2.warpAffine(rgba, 4 * matrix, (4 * p.size, 4 * p.size), flags=cv2.INTER_AREA)
    small = cv2.resize(large, (p.size, p.size), interpolation=cv2.INTER_AREA)
    share = small[..., 3:] / 255
    rgb = face.rgb * (1 - share) + small[..., :3] * share
    return AlignedFace(np.rint(rgb).astype(np.uint8), face.points)


if __name__ == "__main__":
    main()
