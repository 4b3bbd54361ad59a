"""Fits the frame finder's regression on drawn frames, and measures it person by person.

It prints the constants for distill/data/second/frame_finder.py. About 2 minutes on one core;
needs the `demo` extra (openpeople).
"""

from __future__ import annotations

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from distill.data.faces import AlignedFace, FaceDetector, align_face
from distill.data.images import decode
from distill.data.keyed import keyed_rng
from distill.data.second.canvas import Frame, finished
from distill.data.second.frame_finder import features_of
from distill.data.second.frames import draw_frames
from distill.data.sources.openpeople import OpenPeopleSource

DRAWINGS = 3
"""Different frames drawn on each face."""
MAX_TURN = 0.25
"""Heads turned further are left out (see `Frame.turn`)."""


def main() -> None:
    """Prints AUC, recall and false positives, then the constants; for colour and for grey."""
    faces = _faces()
    for name, grey in (("_COLOUR", False), ("_GREY", True)):
        features, wears, people = _features(faces, grey)
        _fit(name, features, wears, people)


def _fit(name: str, features: np.ndarray, wears: np.ndarray, people: np.ndarray) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    held_out = cross_val_predict(
        model, features, wears, groups=people, cv=LeaveOneGroupOut(), method="predict_proba"
    )[:, 1]
    found = held_out > 0.5
    print(f"{name}: {len(wears)} images, AUC {roc_auc_score(wears, held_out):.3f}", end=", ")
    print(f"recall {found[wears == 1].mean():.3f}, false positives {found[wears == 0].mean():.3f}")
    scaler, regression = (step for _, step in model.fit(features, wears).steps)
    weights = regression.coef_[0] / scaler.scale_
    print(f"{name} = _Regression(", tuple(np.round(scaler.mean_, 3).tolist()), end=", ")
    print(tuple(np.round(weights, 2).tolist()), round(float(regression.intercept_[0]), 3), ")")


def _faces() -> list[tuple[str, Frame]]:
    """The frontal faces with their people."""
    faces = []
    for sample in OpenPeopleSource():
        rgb = decode(sample.read())
        frame = Frame(align_face(rgb, FaceDetector().detect(rgb)[0].points))
        if abs(frame.turn) <= MAX_TURN:
            faces.append((sample.identity, frame))
    return faces


def _features(
    faces: list[tuple[str, Frame]], grey: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, 1 where frames are drawn, and people; each face once bare, `DRAWINGS` times not."""
    rows, wears, people = [], [], []
    for number, (person, frame) in enumerate(faces):
        seen = [frame, *(_with_frames(frame, number, drawing) for drawing in range(DRAWINGS))]
        rows += [features_of(_grey(f) if grey else f) for f in seen]
        wears += [0, *(1,) * DRAWINGS]
        people += [person] * len(seen)
    return np.array(rows), np.array(wears), np.array(people)


def _grey(frame: Frame) -> Frame:
    luma = cv2.cvtColor(frame.face.rgb, cv2.COLOR_RGB2GRAY)
    return Frame(AlignedFace(np.repeat(luma[..., None], 3, axis=2), frame.face.points))


def _with_frames(frame: Frame, number: int, drawing: int) -> Frame:
    rng = keyed_rng("fit frames", number, drawing)
    drawn = draw_frames(frame, rng, dark_lenses=bool(rng.random() < 0.2))
    return Frame(AlignedFace(finished(drawn.rgb), frame.face.points))


if __name__ == "__main__":
    main()
