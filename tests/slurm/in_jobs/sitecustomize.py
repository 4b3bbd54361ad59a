"""In every Python of a job here: rank 1 obeys orders of the tests at exact steps; no test itself.

An order is a file ORDERS/RUN@STEP, read before that step, counted from 0, is made. An empty one has
rank 1 wait until it is removed, or until the rank is asked to stop; the others wait for it inside
of the step. One with the number of a signal is removed, and rank 1 sends itself that signal.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

STEP = "distill.step"


class WhenImported:
    """Changes `distill.step` when it is imported: torch comes no earlier than it does."""

    def find_spec(self, name, path=None, target=None):
        if name != STEP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(STEP)
        execute = spec.loader.exec_module

        def with_orders(module):
            execute(module)
            module.train_step = obedient(module.train_step)

        spec.loader.exec_module = with_orders
        return spec


def obedient(make_step):
    def train_step(engine, batches, recipe, step, *rest, **more):
        if engine.ranks.rank == 1:
            obey(Path(os.environ["ORDERS"], f"{Path(recipe.config.run.dir).name}@{step}"))
        return make_step(engine, batches, recipe, step, *rest, **more)

    return train_step


def obey(order: Path) -> None:
    stops = signal.getsignal(signal.SIGUSR2).__self__
    while order.exists() and stops.asked is None:
        if number := order.read_text():
            order.unlink()
            os.kill(os.getpid(), int(number))
            return
        time.sleep(0.05)


sys.meta_path.insert(0, WhenImported())
