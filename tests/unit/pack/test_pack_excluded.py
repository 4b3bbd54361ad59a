"""Training without listed photographs: what remains comes once an epoch, and nothing else does."""

import csv
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.checkpoint.load import _pack_differences
from distill.config.tree import DataConfig
from distill.data.batch import OrderState
from distill.data.excluded import NEEDED, read_excluded
from distill.data.gaps import Gaps
from distill.data.loader import make_train_loader
from distill.data.online_rows import OnlineRows
from distill.data.order import Blocks, Line, Order, Share
from distill.data.second.online import Partners, way_bits
from distill.data.training_set import TrainingSet
from distill.errors import UserError
from distill.inputs import training_set

BEGINNING = OrderState(0, 0)
FIELDS = ("first", "second", "labels", "kinds", "sample_ids")
quick = settings(max_examples=60, deadline=None, derandomize=True)
some_blocks = st.none() | st.builds(Blocks, st.integers(1, 9), st.integers(1, 5))


@st.composite
def with_gaps(draw):
    """Pairs of a set, and those that are left out."""
    total = draw(st.integers(2, 400))
    out = draw(st.sets(st.integers(0, total - 1), max_size=total - 1))
    return total, np.array(sorted(out), np.int64)


@quick
@given(with_gaps())
def test_numbers_and_pairs_are_those_of_a_list(given_set):
    total, out = given_set
    remaining = np.setdiff1d(np.arange(total), out)
    gaps = Gaps(out)
    assert np.array_equal(gaps.pairs(np.arange(len(remaining))), remaining)
    assert np.array_equal(gaps.numbers(remaining), np.arange(len(remaining)))


@quick
@given(with_gaps(), some_blocks, st.integers(0, 99), st.data())
def test_each_remaining_pair_once_an_epoch_and_the_same_on_other_ranks(
    given_set, blocks, seed, data
):
    total, out = given_set
    remaining = np.setdiff1d(np.arange(total), out)
    order = Order(seed, len(remaining), blocks, Gaps(out))
    sizes = [size for size in (1, 2, 4, 6) if size <= len(remaining)]
    size = data.draw(st.sampled_from(sizes))
    steps = -(-3 * len(remaining) // size)

    def batches(ranks, start, count):
        lines = [Line(order, start, Share(r, ranks), size // ranks) for r in range(ranks)]
        streams = [line.batches() for line in lines]
        parts = [np.stack([next(s) for s in streams], 1).reshape(-1, 2) for _ in range(count)]
        return parts, lines[0].state_after(count)

    whole, _ = batches(1, BEGINNING, steps)
    keys = np.concatenate(whole)
    for epoch in range(3):
        assert np.array_equal(np.sort(keys[keys[:, 0] == epoch, 1]), remaining)
    stop = data.draw(st.integers(0, steps - 1))
    first, second = (data.draw(st.sampled_from([r for r in (1, 2, 3) if size % r == 0]))
                     for _ in range(2))  # fmt: skip
    begun, state = batches(first, BEGINNING, stop)
    resumed, _ = batches(second, state, steps - stop)
    assert all(map(np.array_equal, begun + resumed, whole))


@quick
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.data())
def test_nobodys_other_photograph_is_one_that_is_left_out(counts, data):
    people = np.array(data.draw(st.permutations([n % 3 for n in range(len(counts))])))
    owner = np.repeat(people, counts)
    out = np.array(sorted(data.draw(st.sets(st.integers(0, 99)))), np.int64)
    out = out[out < len(owner)]
    remaining = np.setdiff1d(np.arange(len(owner)), out)
    partners, seen = Partners(np.array(counts), people, Gaps(out)), {}
    for epoch in range(40):
        found = partners.of(3, np.full(len(remaining), epoch), remaining)
        for pair, other in zip(remaining.tolist(), found.tolist(), strict=True):
            seen.setdefault(pair, set()).add(other)
    for pair, others in seen.items():
        same = {int(n) for n in remaining if owner[n] == owner[pair]} - {pair}
        assert others <= (same or {-1})
        assert (
            others == same or len(same) > 3 or not same
        )  # a few come up in 40 epochs, all of them


# lists


def write_list(path, pack, rows, header=NEEDED, encoding="utf-8"):
    """Rows of pair, also, identity; or whole ones."""
    with path.open("w", newline="", encoding=encoding) as file:
        table = csv.writer(file)
        table.writerow(header)
        for row in rows:
            table.writerow([pack.manifest.digest[:16], *row] if len(row) == 3 else row)
    return path


def named(pack, pair):
    """The name of a pair's person."""
    return pack.manifest.identities[_labels(pack)[pair]]


def _labels(pack):
    return np.concatenate([shard.samples["label"] for shard in pack.index.shards])


def taken(count, train, rank=0, world=1, state=BEGINNING, batch=6, **words):
    ranks = SimpleNamespace(rank=rank, world_size=world)
    data = DataConfig(**{"workers": 2, **words})
    with make_train_loader(
        train, data, seed=5, ranks=ranks, batch_pairs_per_rank=batch // world, state=state
    ) as loader:
        return list(islice(loader, count))


@pytest.fixture(params=["small_pack", "sharded", "online"])
def pack(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("reader", ["ffcv", "python"])
@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_the_loader_brings_what_is_left_unchanged_on_any_ranks(pack, tmp_path, reader, shuffle):
    out, last = {0, 3, 4, 11}, pack.manifest.pairs - 1
    rows = [[pair, "", named(pack, pair)] for pair in (11, 0, 4, 3)]
    *_, before, after, _ = np.flatnonzero(_labels(pack) == _labels(pack)[last])
    rows.append([last, f"{before} {after}", named(pack, last)])
    out |= {last, int(before), int(after)}
    path = write_list(tmp_path / "list.csv", pack, rows)
    train = TrainingSet.of([pack])
    left = train.without(read_excluded([path], [pack]))
    assert left.pairs == train.pairs - len(out) and left.identities == train.identities
    words = {"reader": reader, "shuffle": shuffle, "block_pairs": 5, "window_blocks": 2}
    words["second"] = pack.manifest.second
    steps = -(-2 * left.pairs // 6)
    whole = taken(steps, left, **words)
    ids = torch.cat([batch.sample_ids for batch, _ in whole])[: 2 * left.pairs].tolist()
    expected = sorted(set(range(train.pairs)) - out)
    assert sorted(ids[: left.pairs]) == sorted(ids[left.pairs :]) == expected
    labels = torch.cat([batch.labels for batch, _ in whole])[: 2 * left.pairs]
    assert labels.tolist() == _labels(pack)[ids].tolist()
    halves = [taken(steps - 4, left, r, 2, whole[3][1], **words) for r in (0, 1)]
    for (batch, state), *parts in zip(whole[4:], *halves, strict=True):
        assert {after for _, after in parts} == {state}
        for field in FIELDS:
            mixed = torch.stack([getattr(part, field) for part, _ in parts], 1).flatten(0, 1)
            assert torch.equal(mixed, getattr(batch, field)), field
    if pack.manifest.second == "packed":  # a pair is changed as it would be with the others there
        before = {}
        for batch, _ in reversed(taken(-(-train.pairs // 6), train, **words)):
            before |= dict(zip(batch.sample_ids.tolist(), batch.first, strict=True))
        for batch, _ in whole[: left.pairs // 6]:
            for pair, image in zip(batch.sample_ids.tolist(), batch.first, strict=True):
                assert torch.equal(before[pair], image)


def test_online_no_second_image_is_made_from_one_that_is_left_out(online, tmp_path):
    labels, out = _labels(online), [1, 2, 3, 4, 5, 6, 7, 8]
    path = write_list(tmp_path / "list.csv", online, [[p, "", named(online, p)] for p in out])
    left = TrainingSet.of([online]).without(read_excluded([path], [online]))
    rows = OnlineRows.of(left, 5)
    ids = np.setdiff1d(np.arange(len(labels)), out)
    for epoch in range(30):
        drawn = rows.draw(np.stack([np.full_like(ids, epoch), ids], 1))
        partners, needed = drawn.partner, drawn.bits & (way_bits("pose") | way_bits("eyes"))
        assert np.array_equal(drawn.read, np.where(needed > 0, partners, -1))
        assert not set(partners.tolist()) & set(out)
        assert (labels[partners] == labels[ids])[partners >= 0].all()
        assert partners[0] == -1  # the only one that its person has left


def test_lists_of_several_packs_speak_of_their_own(small_pack, sharded, make_pack, tmp_path):
    other = make_pack(tmp_path / "other", count=20)
    packs = [small_pack, other]
    one = write_list(
        tmp_path / "one.csv", other, [[7, "12", named(other, 7)], [0, "", named(other, 0)]]
    )
    two = write_list(tmp_path / "two.csv", small_pack, [[9, "", named(small_pack, 9)]])
    left = read_excluded([one, two], packs).gaps.left_out.tolist()
    assert left == [9, *(small_pack.manifest.pairs + pair for pair in (0, 7, 12))]


def test_people_keep_their_classes_and_those_without_photographs_are_counted(small_pack, tmp_path):
    out = np.flatnonzero(_labels(small_pack) == 2).tolist()
    path = write_list(tmp_path / "list.csv", small_pack, [[p, "", "person 2"] for p in out])
    data = DataConfig(train=str(small_pack.path), exclude=str(path))
    left = training_set(data)
    assert left.identities == small_pack.manifest.identities and left.emptied == 1
    labels = torch.cat([batch.labels for batch, _ in taken(9, left)])
    assert set(labels.tolist()) == {0, 1, 3, 4}
    everything = [[p, "", named(small_pack, p)] for p in range(small_pack.manifest.pairs)]
    write_list(path, small_pack, everything)
    with pytest.raises(UserError, match="leaves none of the 53 pairs"):
        training_set(data)
    write_list(path, small_pack, everything[3:])
    with pytest.raises(UserError, match="3 pairs do not fill one global batch of 6"):
        taken(1, training_set(data))


def test_the_digest_says_what_is_left_out_whatever_the_order_of_lines(small_pack, tmp_path):
    train, digests = TrainingSet.of([small_pack]), []
    for rows in ([[3], [5]], [[5], [3]], [[3], [6]], []):
        lines = [[p, "", named(small_pack, p)] for (p,) in rows]
        path = write_list(tmp_path / "list.csv", small_pack, lines)
        digests.append(train.without(read_excluded([path], [small_pack])).digest)
    assert digests[0] == digests[1] != digests[2]
    assert digests[3] == train.digest == digests[0].split("~")[0]
    assert not list(_pack_differences(digests[0], digests[1]))
    (said,) = _pack_differences(digests[0], digests[2])
    assert said.startswith("photographs of data.exclude: ") and " there -> " in said
    (said,) = _pack_differences(digests[0], digests[3])
    assert said.endswith("-> nothing here")


GOOD = [[3, "", "person 3"]]


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        (GOOD, ("pack", "pair", "identity"), "has no column 'also'"),
        ([[53, "", "person 3"]], NEEDED, "line 2: '53' is none of the 53 pairs of its pack"),
        ([["-1", "", "person 3"]], NEEDED, "line 2: '-1' is none of"),
        ([["3.0", "", "person 3"]], NEEDED, "line 2: '3.0' is none of"),
        ([["9" * 30, "", "person 3"]], NEEDED, "is none of the 53 pairs"),
        ([*GOOD, [4, "5 six", "person 4"]], NEEDED, "line 3: 'six' is none of"),
        ([["", "", "person 3"]], NEEDED, "line 2: '' is none of"),
        ([[3, "", "nobody"]], NEEDED, "line 2: nobody in its pack is called 'nobody'"),
        ([[3, "", "person 2"]], NEEDED, "pair 3 of .* is of 'person 3', and listed as of somebody"),
        ([["f" * 16, 3, "", "person 3"]], NEEDED, "pack 'ffffffffffffffff' is none of data.train"),
        ([*GOOD, [4, "", "person 4"], *GOOD], NEEDED, "1 photographs are listed twice, .* pair 3"),
        ([["a", "b"]], NEEDED, "line 2: 2 cells under 4 columns"),
    ],
)
def test_a_list_that_is_wrong_is_named_with_its_line(small_pack, tmp_path, rows, header, said):
    path = write_list(tmp_path / "list.csv", small_pack, rows, header)
    with pytest.raises(UserError, match=said) as error:
        read_excluded([path], [small_pack])
    assert str(path) in error.value.what


def test_several_lists_leave_out_what_any_of_them_names(small_pack, tmp_path):
    """Two audits of one pack agree about some photographs."""
    one = write_list(tmp_path / "one.csv", small_pack, [*GOOD, [4, "9", "person 4"]])
    other = write_list(tmp_path / "other.csv", small_pack, [[7, "", named(small_pack, 7)], *GOOD])
    for order in ([one, other], [other, one]):
        assert read_excluded(order, [small_pack]).gaps.left_out.tolist() == [3, 4, 7, 9]


def test_a_list_that_a_spreadsheet_has_saved_is_the_same(small_pack, tmp_path):
    path = write_list(tmp_path / "list.csv", small_pack, GOOD)
    expected = read_excluded([path], [small_pack]).gaps.left_out.tolist()
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_bytes("\r\n".join(["\ufeff" + lines[0], *lines[1:]]).encode())
    assert read_excluded([path], [small_pack]).gaps.left_out.tolist() == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        ("pack,pair,also,identity\nj\xfcrgen,".encode("latin-1"), "is no text in UTF-8"),
        (b'pack,pair,also,identity\n"a', "line 2: unexpected end of data"),
        (None, "No such file or directory"),
    ],
)
def test_what_is_no_list_is_refused(small_pack, tmp_path, content, said):
    path = tmp_path / "list.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_excluded([path], [small_pack])
