"""Searches among many people, in bounded memory."""

import numpy as np

from distill.data.protocols.ijb_search import Enrolled, Searches
from distill.evaluate import search as search_module
from distill.evaluate.search import search


def test_scores_in_memory_do_not_grow_with_a_gallery(monkeypatch):
    rng, sizes = np.random.default_rng(0), []
    vectors = rng.normal(size=(50, 6))
    gallery = Enrolled("g", np.arange(20), np.arange(20))
    searches = Searches((gallery,), Enrolled("mixed", np.arange(20, 50), np.arange(30)))
    expected = search(vectors, searches)
    real = search_module.block
    monkeypatch.setattr(
        search_module,
        "block",
        lambda scores, mates: (sizes.append(scores.size), real(scores, mates))[1],
    )
    monkeypatch.setattr(search_module, "SCORES_AT_ONCE", 100)
    assert search(vectors, searches) == expected
    assert max(sizes) == 100 and sum(sizes) == 20 * 30
