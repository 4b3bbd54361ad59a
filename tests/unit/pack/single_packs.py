"""Photographs whose second images are made while training, for the tests of this room."""

import cv2
import numpy as np
import simplejpeg

from distill.data.faces import TEMPLATE, AlignedFace
from distill.data.pack_writer import EncodedPair, write_pack
from distill.data.second.online import face_row, ways

COUNTS = (9, 1, 0, 6, 7)
TOTAL = sum(COUNTS)
CHANCES = {"pose": 0.5, "eyes": 0.4, "blur": 0.5}


def drawn(seed):
    small = np.random.default_rng(seed).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)


def encoded(seed):
    return simplejpeg.encode_jpeg(drawn(seed), quality=90, colorsubsampling="444")


def single(number, label):
    jpeg = encoded(number)
    points = TEMPLATE + np.random.default_rng(number).normal(0, 1, (5, 2)).astype(np.float32)
    face = AlignedFace(simplejpeg.decode_jpeg(jpeg, fastdct=True), points.astype(np.float32))
    return EncodedPair(jpeg, b"", label, 0, face_row(face)), face


def write_singles(folder, pairs, **options):
    names = [f"person {i}" for i in range(len(COUNTS))]
    settings = {"kinds": ways(CHANCES), "second": "online", "kind_chances": CHANCES}
    return write_pack(folder, pairs, len(pairs), identities=names, **(settings | options))
