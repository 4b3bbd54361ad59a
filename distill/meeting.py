"""How ranks meet: they come to one store, and go on when all are there or none.

Some may come hours later than others, while they copy packs. So the waits heed stop signals. The
store holds one word, which all obey: of the last to come, or the first that waits no longer.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from threading import Thread
from typing import TYPE_CHECKING

import torch.distributed as dist
from torch.distributed import HashStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from distill.processes.spawn import LISTEN_FD
from distill.processes.stop import StoppedEarly

if TYPE_CHECKING:
    from distill.processes.stop import StopRequests
    from distill.ranks import Ranks

_HERE, _WORD = "pairdistill/here", "pairdistill/word"
_ALL, _LATE = "all", "late"
"""Words: all are here; one rank has waited long enough. Else the name of the signal that came."""
_PAUSES_SECONDS = (0.005, 0.5)
"""Between looks for the word: at first, and doubled up to this."""
_DOING = "while it waited for all ranks to come"


def meet(ranks: Ranks, timeout: timedelta, stops: StopRequests | None = None) -> Store:
    """The store of a job whose ranks are all there; what they ask of it then has ``timeout``.

    Args:
        ranks: this process among the others.
        timeout: how long after the latest that a rank may come all must be there.
        stops: stop signals, where they are listened for already.

    Raises:
        torch.distributed.DistStoreError: not all ranks have come by then.
        torch.distributed.DistNetworkError: the rank that keeps the store has gone.
        StoppedEarly: this rank was asked to stop, or one that waited with it; on all that wait.
    """
    patience = timeout + timedelta(minutes=ranks.late_min)
    try:
        store = _opened(ranks, patience, stops)
        # torch has only the rank wait that keeps the store; the others would wait for it as long as
        # a collective may take.
        if store.add(_HERE, 1) == ranks.world_size:
            store.compare_set(_WORD, "", _ALL)
        word = _awaited(store, time.monotonic() + patience.total_seconds(), stops)
        if word != _ALL and ranks.is_first:  # it may keep the store, where the others look
            time.sleep(2 * _PAUSES_SECONDS[1])
        if word == _LATE:
            raise dist.DistStoreError(f"{store.add(_HERE, 0)} of {ranks.world_size} have come")
    except (dist.DistStoreError, dist.DistNetworkError) as error:
        why = str(error).partition("\n")[0]  # then follows where in torch
        if isinstance(error, dist.DistNetworkError) and "timed out" not in why:
            raise  # the rank that keeps the store has gone, and says why
        minutes = patience.total_seconds() / 60
        raise dist.DistStoreError(
            f"timed out waiting {minutes:.3g} minutes for the other ranks ({why}): see the logs"
            " of those, and raise train.collective_timeout_min where they were only slow"
        ) from error
    if word != _ALL:
        raise StoppedEarly(signal.Signals[word], _DOING)
    store.set_timeout(timeout)
    return store


def _opened(ranks: Ranks, patience: timedelta, stops: StopRequests | None) -> Store:
    """The store; the rank that keeps it may come late."""
    if stops is None or ranks.world_size == 1:
        return _store(ranks, patience)
    opening: Future[Store] = Future()

    def open_it() -> None:
        try:
            opening.set_result(_store(ranks, patience))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            opening.set_exception(error)

    # torch's wait hears no signals; Python's does, in the main thread.
    Thread(target=open_it, daemon=True).start()
    try:
        return stops.ending(opening.result, _DOING)
    except StoppedEarly:
        with suppress(TimeoutError):  # those who are there already are to hear of it
            return opening.result(2 * _PAUSES_SECONDS[1])
        raise


def _store(ranks: Ranks, timeout: timedelta) -> Store:
    if ranks.world_size == 1:
        return HashStore()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):  # kept by torchrun
        store: Store
        store, _, _ = next(rendezvous("env://", ranks.rank, ranks.world_size, timeout=timeout))
        return store
    listening = os.environ.get(LISTEN_FD) if ranks.is_first else None
    return TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        ranks.world_size,
        ranks.is_first,
        timeout,
        wait_for_workers=False,
        multi_tenant=listening is None,
        master_listen_fd=None if listening is None else int(listening),
    )


def _awaited(store: Store, deadline: float, stops: StopRequests | None) -> str:
    """The word of the store; this rank's own after ``deadline`` or where it was asked to stop.

    Args:
        store: of all ranks.
        deadline: as `time.monotonic` has it.
        stops: stop signals, where they are listened for.
    """
    pause, longest = _PAUSES_SECONDS
    while not store.check([_WORD]):
        if stops is not None and (by := stops.asked) is not None:
            store.compare_set(_WORD, "", by.name)
        elif time.monotonic() > deadline:
            store.compare_set(_WORD, "", _LATE)
        else:
            time.sleep(pause)
            pause = min(2 * pause, longest)
    return str(store.get(_WORD).decode())
