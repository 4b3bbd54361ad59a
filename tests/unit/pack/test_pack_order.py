"""The order of pairs, driven over ranks, epochs, resumes and ways to shuffle."""

from itertools import islice, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.batch import OrderState
from distill.data.order import (
    Blocks,
    Line,
    Order,
    Share,
    check_global_batch,
    evaluation_slice,
    permuted,
    steps_of,
)
from distill.errors import UserError

PINNED = [4, 5, 1, 7, 2, 0, 3, 6]
BEGINNING = OrderState(0, 0)
quick = settings(max_examples=40, deadline=None, derandomize=True)
some_blocks = st.none() | st.builds(Blocks, st.integers(1, 9), st.integers(1, 5))


def global_batches(order, state, ranks, batch, accumulation, steps):
    """What all ranks together take in each optimizer step, (pairs, 2), and the state after it."""
    lines = [Line(order, state, Share(r, ranks), batch) for r in range(ranks)]
    streams = [line.batches() for line in lines]
    done = []
    for step in range(steps):
        parts = [np.stack([next(s) for s in streams], axis=1) for _ in range(accumulation)]
        after = {line.state_after((step + 1) * accumulation) for line in lines}
        assert len(after) == 1
        done.append((np.concatenate(parts).reshape(-1, 2), after.pop()))
    return done


@quick
@given(st.integers(0, 2**64), st.integers(0, 9), st.integers(1, 3000))
def test_a_permutation_holds_every_number_once_and_repeats(seed, epoch, n):
    order = permuted(np.arange(n), n, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(n))
    some = np.arange(n)[:: max(n // 7, 1)]
    assert np.array_equal(permuted(some, n, seed, epoch), order[some])  # place by place


def test_permutations_are_pinned_and_differ_between_seeds_and_epochs():
    assert permuted(np.arange(8), 8, 1, 2).tolist() == PINNED
    orders = {tuple(permuted(np.arange(50), 50, s, e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize(
    ("n", "blocks", "expected"),
    [
        (1000, None, [781, 828, 576, 449]),
        (5_822_653, None, [1_750_677, 1_072_616, 1_592_508, 2_909_704]),
        (42_474_557, None, [19_723_926, 35_403_425, 2_093_352, 6_074_352]),
        (5_822_653, Blocks(64, 4), [911_112, 5_186_879, 3_830_249, 5_385_513]),
    ],
)
def test_the_orders_of_runs_under_way_are_pinned(n, blocks, expected):
    """A release that ordered otherwise would repeat and miss pairs in an epoch that is resumed."""
    places = np.array([0, 1, n // 2, n - 1])
    assert Order(7, n, blocks).ids(3, places).tolist() == expected


@pytest.mark.parametrize("n", [4, 5])
def test_all_permutations_come_up_about_equally_often(n):
    """Chi-squared over all n! orders; the bound is 5 standard deviations of the statistic."""
    all_orders = dict.fromkeys(permutations(range(n)), 0)
    draws = 25 * len(all_orders)
    for seed in range(draws):
        all_orders[tuple(permuted(np.arange(n), n, seed, 0).tolist())] += 1
    free = len(all_orders) - 1
    statistic = sum((count - 25) ** 2 / 25 for count in all_orders.values())
    assert abs(statistic - free) < 5 * np.sqrt(2 * free)


def test_neighbours_are_torn_apart():
    """Of a large set: places and pairs are uncorrelated, and so are the pairs of next places."""
    order = permuted(np.arange(200_000), 200_000, 3, 0)
    assert abs(np.corrcoef(np.arange(200_000), order)[0, 1]) < 0.01
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.01
    assert np.mean(np.abs(np.diff(order)) == 1) < 1e-4


@quick
@given(
    st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.integers(0, 40), some_blocks,
    st.integers(0, 99),
)  # fmt: skip
def test_every_pair_exactly_once_an_epoch_on_any_number_of_ranks(
    ranks, batch, accumulation, extra, blocks, seed
):
    size = ranks * batch * accumulation
    n, epochs = size + extra, 3
    steps = steps_of(epochs, n, size)
    taken = global_batches(Order(seed, n, blocks), BEGINNING, ranks, batch, accumulation, steps)
    keys = np.concatenate([rows for rows, _ in taken])
    for epoch in range(epochs):
        of_epoch = keys[keys[:, 0] == epoch, 1]
        assert np.array_equal(np.sort(of_epoch), np.arange(n))
    assert np.array_equal(keys[:, 0], np.sort(keys[:, 0]))  # no epoch begins before one ends
    assert 0 <= len(keys) - epochs * n < size


@quick
@given(st.data())
def test_a_resume_on_other_ranks_gives_the_same_global_sequence(data):
    size = data.draw(st.sampled_from([4, 8, 12, 24]))
    layouts = [
        (ranks, batch, size // (ranks * batch))
        for ranks in range(1, size + 1)
        for batch in range(1, size + 1)
        if size % (ranks * batch) == 0
    ]
    n, seed = data.draw(st.integers(size, 5 * size)), data.draw(st.integers(0, 1000))
    blocks = data.draw(some_blocks)
    first, second = data.draw(st.sampled_from(layouts)), data.draw(st.sampled_from(layouts))
    whole = global_batches(Order(seed, n, blocks), BEGINNING, *first, 12)
    stop = data.draw(st.integers(1, 11))
    resumed = global_batches(Order(seed, n, blocks), whole[stop - 1][1], *second, 12 - stop)
    for (keys, state), (other_keys, other_state) in zip(whole[stop:], resumed, strict=True):
        assert state == other_state
        assert np.array_equal(keys, other_keys)  # even the order within a step agrees


@quick
@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 6), st.integers(0, 99))
def test_blocks_are_read_window_by_window(n, pairs, window, seed):
    """All pairs of some blocks come before any of the next, and they come mixed."""
    order = Order(seed, n, Blocks(pairs, window))
    ids = order.ids(2, np.arange(n))
    plan, place = order.plan(2), 0
    for number in range(plan.windows()):
        members = plan.members(number)
        expected = np.concatenate([np.arange(b * pairs, min((b + 1) * pairs, n)) for b in members])
        found = ids[place : place + len(expected)]
        assert np.array_equal(np.sort(found), np.sort(expected))
        assert set(plan.window_at(np.arange(place, place + len(expected))).tolist()) == {number}
        place += len(expected)
    assert place == n
    if n > 100 and window * pairs > 30:
        assert not np.array_equal(ids, np.sort(ids))


def test_places_are_computed_in_pieces_that_do_not_show(monkeypatch):
    def line():
        return Line(Order(0, 1000), OrderState(3, 990), Share(1, 3), 7)

    whole = list(islice(line().batches(), 40))
    monkeypatch.setattr("distill.data.order._PLACES_AT_ONCE", 20)
    pieces = list(islice(line().batches(), 40))
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_states_count_global_pairs_and_roll_over():
    states = [s for _, s in global_batches(Order(0, 25), BEGINNING, 2, 5, 1, 5)]
    assert states == [(0, 10), (0, 20), (1, 5), (1, 15), (2, 0)]


@quick
@given(st.integers(0, 200), st.integers(1, 9))
def test_evaluation_takes_every_pair_exactly_once(n, ranks):
    slices = [evaluation_slice(n, Share(r, ranks)) for r in range(ranks)]
    assert np.array_equal(np.concatenate(slices), np.arange(n))
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_a_set_smaller_than_the_global_batch_is_refused():
    with pytest.raises(UserError, match=r"31 pairs do not fill one global batch of 32.*at most 31"):
        check_global_batch(31, 32, "packs/mine")
    check_global_batch(32, 32, "packs/mine")


def test_a_line_of_40_million_pairs_begins_at_once():
    """Neither a list of pairs nor one of blocks that grows with them: a few MB, from any place."""
    import tracemalloc

    tracemalloc.start()
    for blocks, limit in ((None, 4e6), (Blocks(256, 256), 40e6)):
        tracemalloc.reset_peak()
        line = Line(Order(0, 40_000_000, blocks), OrderState(7, 39_999_999), Share(0, 1), 128)
        keys = next(line.batches())
        assert keys[0, 0] == 7 and set(keys[1:, 0].tolist()) == {8}
        assert tracemalloc.get_traced_memory()[1] < limit
    tracemalloc.stop()
