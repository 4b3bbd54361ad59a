"""A folder as InsightFace lays out IJB-C, of drawn faces turned and shifted by known amounts."""

import json
from itertools import combinations

import cv2
import numpy as np
from drawn_people import PEOPLE, draw_face, make_config, make_model
from PIL import Image
from safetensors.torch import save_file

ARCFACE = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366],
           [41.5493, 92.3655], [70.7299, 92.2041]]  # fmt: skip
SIZE = (170, 190)
TEMPLATES_OF_A_PERSON = 5
IN_GALLERIES = ((0, 1, 2), (3, 4))
"""People 5 and 6 are in none; template 0 of the others is that of the gallery."""


def moved(rng):
    """A similarity from the aligned face into the photograph, (2, 3) float64."""
    angle, scale = rng.uniform(-0.5, 0.5), rng.uniform(0.8, 1.2)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, np.array(SIZE) / 2 - turn @ [56, 56]])


def write_image(path, rng, person):
    """A JPEG with the face somewhere in it, perhaps hard to tell; its five points."""
    matrix, share = moved(rng), rng.uniform(0.2, 1)
    faces = [draw_face(rng, of).astype(np.float64) for of in (person, rng.integers(len(PEOPLE)))]
    face = (share * faces[0] + (1 - share) * faces[1]).astype(np.uint8)
    photograph = cv2.warpAffine(face, matrix, SIZE, borderValue=(90, 90, 90))
    Image.fromarray(photograph).save(path, quality=95)
    return np.array(ARCFACE) @ matrix[:, :2].T + matrix[:, 2]


def write_ijb(folder, kind):
    """Templates of one to four media, of one to three images; their numbers have gaps."""
    rng = np.random.default_rng(31)
    (folder / "meta").mkdir(parents=True)
    (folder / "loose_crop").mkdir()
    owners = {7 + 3 * n: n % len(PEOPLE) for n in range(len(PEOPLE) * TEMPLATES_OF_A_PERSON)}
    shown = [(template, media) for template in owners for media in range(rng.integers(1, 5))
             for _ in range(rng.integers(1, 4))]  # fmt: skip
    rng.shuffle(shown)
    points, places = [], []
    for number, (template, media) in enumerate(shown, 1):
        name = f"{number}.jpg"
        found = write_image(folder / "loose_crop" / name, rng, owners[template])
        numbers = " ".join(f"{value:.3f}" for value in found.ravel())
        points.append(f"{name} {numbers} {rng.uniform(0.2, 1):.3f}\n")
        # media 90 + k are in several templates: that is not one media of a template
        places.append(f"{name} {template} {90 + media}\n")
    pairs = [f"{a} {b} {int(owners[a] == owners[b])}\n" for a, b in combinations(owners, 2)]
    rng.shuffle(pairs)
    meta = folder / "meta"
    (meta / f"{kind}_name_5pts_score.txt").write_text("".join(points))
    (meta / f"{kind}_face_tid_mid.txt").write_text("".join(places))
    (meta / f"{kind}_template_pair_label.txt").write_text("".join(pairs))
    write_searches(meta, kind, owners)
    return folder


def write_searches(meta, kind, owners):
    """IJB's own columns; a line for each image, here two of every template."""
    enrolled = dict(list(owners.items())[: len(PEOPLE)])
    names = ("G1", "G2") if kind == "ijbc" else ("S1", "S2")
    for name, people in zip(names, IN_GALLERIES, strict=True):
        of = {template: person for template, person in enrolled.items() if person in people}
        write_csv(meta / f"{kind}_1N_gallery_{name}.csv", of)
    rest = {template: person for template, person in owners.items() if template not in enrolled}
    write_csv(meta / f"{kind}_1N_probe_mixed.csv", rest)


def write_csv(path, owners):
    lines = ["TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID"]
    lines += [f"{t},{100 + p},img/{n}.png,1" for t, p in owners.items() for n in range(2)]
    path.write_text("\r\n".join(lines) + "\r\n")


def write_weights(path):
    """As a run leaves them."""
    about = {"format": "pairdistill-weights-1", "step": "12", "run_id": "r"}
    about |= {"config": json.dumps(make_config().model_dump()), "identities": json.dumps(PEOPLE)}
    save_file(make_model().state_dict(), path, about)
    return path
