"""JPEG pairs in, a whole pack folder out: the last step of `pack`, and a way to small packs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from distill.data.beton import LAYOUTS, BetonWriter, Layout
from distill.data.digests import ends_sha256, file_sha256
from distill.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    Pack,
    ShardFacts,
    read_pack,
    shard_name,
)
from distill.files import disk_errors, write_whole

SHARD_BYTES = 4 * 10**9
"""Size at which a new shard is begun: large enough for few files, small enough for any file system,
and little is lost with the one that a killed packer was writing."""
_BYTES_A_PAIR = 4096
"""A pair is rarely smaller; room for so many rows is left at the head of a shard."""


class EncodedPair(NamedTuple):
    """One pair, ready to be stored.

    Attributes:
        first: JPEG of the sample.
        second: JPEG of the processed image; empty where it is made online.
        label: index of the person.
        kind: index of the way the second image was made.
        face: 48 bytes about the face, where the second image is made online.
    """

    first: bytes
    second: bytes
    label: int
    kind: int
    face: bytes = b""


class Tally:
    """Pairs of each person and of each kind."""

    def __init__(self) -> None:
        self.labels: Counter[int] = Counter()
        self.kinds: Counter[int] = Counter()

    def count(self, pair: EncodedPair) -> EncodedPair:
        """Takes in one pair, and gives it back."""
        self.labels[pair.label] += 1
        self.kinds[pair.kind] += 1
        return pair


class ShardWriter:
    """Pairs to as many `.beton` files as they need; a context manager.

    A full shard reaches the disk and is digested in a thread, while the next one is written.

    Args:
        folder: of the pack.
        total: pairs of the whole pack.
        image_side: height and width of the images, in pixels.
        layout: what a sample consists of.
        shard_bytes: size at which a new shard is begun, in bytes.
        named: what errors speak of.
        finished: shards that are there already, with their pairs.
        at_full: told of each shard when its last pair has been taken.
        at_end: told of each shard when it is whole.
        first_number: number of the first shard that is written, where it does not follow
            ``finished``.

    Attributes:
        facts: of the shards so far.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        *,
        image_side: int = 112,
        layout: Layout = LAYOUTS["pairs"],
        shard_bytes: int = SHARD_BYTES,
        named: Path | None = None,
        finished: Sequence[ShardFacts] = (),
        at_full: Callable[[], None] = lambda: None,
        at_end: Callable[[ShardFacts], None] = lambda _: None,
        first_number: int | None = None,
    ) -> None:
        self._folder, self._named = folder, named
        self._left = total - sum(shard.pairs for shard in finished)
        self._side, self._layout, self._shard_bytes = image_side, layout, shard_bytes
        self._at_full, self._at_end = at_full, at_end
        self.facts = list(finished)
        self._number = len(self.facts) if first_number is None else first_number
        self._open: BetonWriter | None = None
        self._stack = ExitStack()
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="pairdistill-shard")
        self._ending: Future[ShardFacts] | None = None

    def __enter__(self) -> Self:
        return self

    def append(self, pair: EncodedPair) -> None:
        """Stores one pair."""
        assert self._left > 0, "more pairs than were announced"
        writer = self._open or self._begin()
        writer.append(*pair)
        self._left -= 1
        full = writer.data_bytes + len(pair.first) + len(pair.second) > self._shard_bytes
        if full or writer.appended == self._capacity or not self._left:
            self._end(writer)
        elif self._ending is not None and self._ending.done():
            self._ended()

    def _begin(self) -> BetonWriter:
        self._capacity = min(self._left, max(self._shard_bytes // _BYTES_A_PAIR, 1))
        writer = BetonWriter(
            self._folder / shard_name(self._number),
            self._capacity,
            self._side,
            layout=self._layout,
            named=self._named,
        )
        self._open = self._stack.enter_context(writer)
        return writer

    def _end(self, writer: BetonWriter) -> None:
        """Has the open shard finished, once the one before it is."""
        self._open = None
        self._at_full()
        self._ended()
        path = self._folder / shard_name(self._number)
        self._ending = self._finisher.submit(_finished, self._stack.pop_all(), writer, path)
        self._number += 1

    def _ended(self) -> None:
        """Waits for the shard that is being finished, if any, and says what is in it."""
        if self._ending is not None:
            ending, self._ending = self._ending, None
            self.facts.append(ending.result())
            self._at_end(self.facts[-1])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                assert not self._left, "fewer pairs than were announced"
                self._ended()
        finally:
            self._stack.__exit__(kind, error, trace)
            self._finisher.shutdown()
        if self._ending is not None and self._ending.exception() is None:
            self._ended()  # not lost to what went wrong after it


def _finished(stack: ExitStack, writer: BetonWriter, path: Path) -> ShardFacts:
    """Closes a shard, and says what is in it."""
    stack.close()
    return ShardFacts(
        name=path.name,
        pairs=writer.appended,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        ends_sha256=ends_sha256(path),
    )


def write_pack(
    folder: Path,
    pairs: Iterable[EncodedPair],
    count: int,
    *,
    identities: Sequence[str],
    kinds: Sequence[str],
    named: Path | None = None,
    image_side: int = 112,
    second: Literal["packed", "online"] = "packed",
    shard_bytes: int = SHARD_BYTES,
    **description: Any,
) -> Pack:
    """Writes shards and `manifest.json` into ``folder``, which is made where it is missing.

    Args:
        folder: where to.
        pairs: consumed one by one, so memory stays flat.
        count: how many there will be.
        identities: names, indexed by label.
        kinds: names, indexed by kind; read after the last pair.
        named: what errors speak of instead of ``folder``.
        image_side: height and width of the images, in pixels.
        second: whether second images are packed.
        shard_bytes: size at which a new shard is begun, in bytes.
        description: other fields of `Manifest`.

    Raises:
        UserError: the disk is full or the folder not writable.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tally = Tally()
    layout = layout_of(second)
    with ShardWriter(
        folder, count, image_side=image_side, layout=layout, shard_bytes=shard_bytes, named=named
    ) as writer:
        for pair in pairs:
            writer.append(tally.count(pair))
    return write_manifest(
        folder,
        writer.facts,
        tally,
        identities=identities,
        kinds=kinds,
        named=named,
        image_side=image_side,
        second=second,
        **description,
    )


def layout_of(second: Literal["packed", "online"]) -> Layout:
    """What a sample consists of where second images are packed, or made online."""
    return LAYOUTS["singles" if second == "online" else "pairs"]


def write_manifest(
    folder: Path,
    shards: Sequence[ShardFacts],
    tally: Tally,
    *,
    identities: Sequence[str],
    kinds: Sequence[str],
    named: Path | None = None,
    **description: Any,
) -> Pack:
    """Writes `manifest.json`, which makes a folder of shards a pack."""
    pairs, online = sum(shard.pairs for shard in shards), description.get("second") == "online"
    manifest = Manifest(
        pairs=pairs,
        identities=list(identities),
        kinds=list(kinds),
        pairs_per_identity=[tally.labels[i] for i in range(len(identities))],
        pairs_per_kind={} if online else {name: tally.kinds[i] for i, name in enumerate(kinds)},
        shards=list(shards),
        **{"purpose": "train", "photographs": pairs, **description},
    )
    text = manifest.model_dump_json(indent=1)
    write_whole(folder / MANIFEST_NAME, text.encode("utf-8"), named=named)
    return read_pack(folder)
