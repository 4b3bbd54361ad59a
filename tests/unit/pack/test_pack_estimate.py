"""`--dry-run`: near what packing then makes, and nothing written."""

import cv2
import numpy as np
import pytest

from distill.data.pack import PackOptions, open_source, pack
from distill.data.pack.estimate import estimate
from distill.errors import UserError


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs") / "people"
    rng = np.random.default_rng(0)
    for name in ("ann", "bob"):
        (root / name).mkdir(parents=True)
        for i in range(12):
            small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            cv2.imwrite(str(root / name / f"{i}.png"), cv2.resize(small, (112, 112)))
    (root / "bob" / "bad.png").write_bytes(b"no image")
    return root


def test_size_and_counts_are_near_what_comes(people, tmp_path):
    options = PackOptions(aligned=True, workers=1, second_per_image=3, kinds={"blur": 1.0})
    found = estimate(open_source(str(people)), options)
    assert (found.photographs, found.sampled) == (25, 25)
    assert found.usable == pytest.approx(24 / 25)
    assert sum(found.reasons.values()) == 1
    assert found.scratch_bytes == 24 * 37_676
    assert list(tmp_path.iterdir()) == []
    manifest = pack(open_source(str(people)), tmp_path / "out", options).train.manifest
    assert found.pairs == manifest.pairs == 72
    (shard,) = pack(open_source(str(people)), tmp_path / "out", options).train.index.shards
    stored = int(shard.sizes.sum())
    assert found.pack_bytes == pytest.approx(stored + 72 * 104, rel=0.02)
    assert found.seconds > 0


def test_a_sample_without_a_usable_photograph(tmp_path):
    (tmp_path / "in" / "ann").mkdir(parents=True)
    (tmp_path / "in" / "ann" / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the first 1 photographs can be used"):
        estimate(open_source(str(tmp_path / "in")), PackOptions(aligned=True))
