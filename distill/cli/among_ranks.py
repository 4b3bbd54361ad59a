"""Commands whose work the ranks share: this process among them, and bars for what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.ranks import Ranks
    from distill.trained import TrainedBackbone


@contextmanager
def as_rank(
    trained: TrainedBackbone, title: str, units: int
) -> Iterator[tuple[Ranks, Callable[[int], None]]]:
    """As `among_ranks`, with what counts units of work.

    Rank 0 shows a bar for its share of the ``units``.
    """
    with among_ranks(trained) as ranks:
        if not ranks.is_first:
            yield ranks, lambda done: None
            return
        with units_bar(ranks.own_part(title), units // ranks.world_size) as advance:
            yield ranks, advance


@contextmanager
def among_ranks(trained: TrainedBackbone) -> Iterator[Ranks]:
    """This process among the ranks, with the model on its device."""
    from distill.ranks import from_environment, init_process_group, leave_process_group, set_threads

    ranks = from_environment(trained.config)
    set_threads(trained.config, ranks)
    trained.model.to(ranks.device)
    init_process_group(trained.config, ranks)
    try:
        yield ranks
    finally:
        leave_process_group()


@contextmanager
def units_bar(title: str, units: int) -> Iterator[Callable[[int], None]]:
    """What counts units of work that a bar shows."""
    from distill.console import progress_bar

    with progress_bar(title, units) as bar:
        yield bar.advance
