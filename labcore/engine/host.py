"""What starting processes does to this one, undone: environment, main module and interrupts."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from multiprocessing import resource_tracker


@contextmanager
def restored_environment(names: Iterable[str]) -> Iterator[None]:
    """Dask sets variables for its workers in this process, for good."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def unguarded_main() -> Iterator[None]:
    """Keep new processes from running the script again, which they need not know.

    What a script defines travels by value, so it works without ``if __name__ == "__main__"``.
    """
    main = sys.modules["__main__"]
    before = getattr(main, "__spec__", None)
    main.__spec__ = ModuleSpec("labcore.__main__", None)
    try:
        yield
    finally:
        main.__spec__ = before


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done, so that it leaves no half-made cluster behind."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as under nohup
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    # Threads and processes started meanwhile inherit the mask, so Ctrl-C is for this one alone;
    # but not from a thread in which multiprocessing has to start its tracker first.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if caught:
            raise KeyboardInterrupt from None
