"""Many pieces of work, in this process or on worker processes, with the same payloads either way.

One piece that raises, hangs, crashes or runs out of memory becomes a Failure; the rest goes on.
Everywhere a piece computes on one thread, since sums differ between thread counts.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import chain, islice
from operator import length_hint
from typing import TypeVar

from labcore.errors import InvalidOption
from labcore.text import reason_of

Block = TypeVar("Block")
Payload = TypeVar("Payload")


@dataclass(frozen=True)
class Failure:
    """Why a block has no payload: status "failed" (it raised), "timeout" or "killed"."""

    status: str
    reason: str
    traceback: str = ""


def execute(
    blocks: Iterable[Block],
    task: Callable[[Block], Payload],
    *,
    workers: int = 0,
    timeout: float | None = None,
    memory: int | None = None,
    split: Callable[[Block], Sequence[Block]] | None = None,
) -> Generator[tuple[Block, Payload | Failure], None, None]:
    """Run ``task`` on every block and yield (block, payload or Failure) as they end.

    With ``workers=0`` in this process, one after the other. Otherwise on that many processes:
    ``timeout`` bounds the seconds a block may take and ``memory`` the bytes it may allocate (by
    default an equal share of the machine's); ``task``, blocks and payloads must pickle, and a
    script needs no ``__main__`` guard. A block that overruns or takes its process down is split by
    ``split`` and its parts are run and yielded alone; what cannot be split is run once more if its
    process died, then given up. Close the generator to end the processes early.

    Raises InvalidOption, and LabError where no worker can be started.
    """
    _check(workers, timeout, memory)
    return _execute(blocks, task, workers, timeout, memory, split)


def _execute(
    blocks: Iterable[Block],
    task: Callable[[Block], Payload],
    workers: int,
    timeout: float | None,
    memory: int | None,
    split: Callable[[Block], Sequence[Block]] | None,
) -> Generator[tuple[Block, Payload | Failure], None, None]:
    pending = iter(blocks)
    if workers == 0:
        limited = one_thread()
        for block in pending:
            yield block, attempt(task, block, limited)
        return
    useful = max(1, min(workers, length_hint(blocks, workers)))
    first = list(islice(pending, 1))
    if first:
        from labcore.engine.cluster import Cluster

        with Cluster(task, useful, memory) as cluster:
            yield from cluster.run(chain(first, pending), timeout, split)


def _check(workers: int, timeout: float | None, memory: int | None) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise InvalidOption(f"workers={workers!r}: it must be a whole number, 0 or more")
    for name, value in (("timeout", timeout), ("memory", memory)):
        if value is None:
            continue
        if not value > 0:
            raise InvalidOption(f"{name}={value!r}: it must be positive")
        if workers == 0:
            raise InvalidOption(
                f"{name}={value!r}: this process cannot be stopped from within; use workers=1"
            )


def attempt(
    task: Callable[[Block], Payload],
    block: Block,
    limited: Callable[[], AbstractContextManager[None]],
) -> Payload | Failure:
    """One block, on one thread; what it prints goes to stderr, what it raises to a Failure."""
    try:
        with limited(), redirect_stdout(sys.stderr):
            return task(block)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        return Failure("failed", reason_of(error), text[-20_000:])


def one_thread() -> Callable[[], AbstractContextManager[None]]:
    """A context to compute in on one thread; leaving it puts the thread counts back."""
    import scipy.linalg  # noqa: F401  (its BLAS must be loaded to be limited)
    import torch
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController()

    @contextmanager
    def limited() -> Iterator[None]:
        before = torch.get_num_threads()
        try:
            with controller.limit(limits=1):
                torch.set_num_threads(1)
                yield
        finally:
            torch.set_num_threads(before)

    return limited
