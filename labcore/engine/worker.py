"""What runs in a worker process, and the nanny that watches over it."""

from __future__ import annotations

import multiprocessing
import os
import queue
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
from distributed import Nanny, Worker, get_worker
from distributed.core import Status

from labcore.engine import Failure, attempt, one_thread
from labcore.errors import LabError
from labcore.text import reason_of


class ReadyWorker(Worker):
    """A dask worker that makes itself ready for the task before it asks for work."""

    def __init__(self, *args: Any, blob: bytes, room: int, **given: Any) -> None:
        super().__init__(*args, **given)
        self.blob, self.room = blob, room

    async def start_unsafe(self) -> Any:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _make_locks_without_names()
        os.dup2(2, 1)  # what plugins print must not land in the driver's output
        self.limited = one_thread()
        self.task = _unpickled(self.blob)
        _limit_memory(self.room)
        return await super().start_unsafe()


def _make_locks_without_names() -> None:
    """A worker is ended at once, so nothing of it may wait to be tidied up.

    Locks of multiprocessing, such as the one of tqdm's bars, have names to be removed later where
    processes are spawned, and none where they are forked. A worker starts no processes itself.
    """
    if "fork" in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("fork", force=True)


def _unpickled(blob: bytes) -> Callable[[Any], Any]:
    try:
        task: Callable[[Any], Any] = cloudpickle.loads(blob)
    except BaseException as error:
        reason = f"the worker cannot load the task: {reason_of(error)}"

        def task(block: Any) -> Any:
            raise LabError(reason)

    return task


def _limit_memory(room: int) -> None:
    """Let allocations beyond ``room`` bytes fail, where the system can (Linux)."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (li for li in status.read_text().splitlines() if li.startswith("VmData"))
        held = int(line.split()[1]) * 1024
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (held + room, most))


def run_block(blob: bytes, path: str) -> None:
    """One block on a worker: its payload, complete, becomes the file ``path``."""
    worker: Any = get_worker()
    part = Path(path).with_suffix(".part")
    with part.open("wb") as file:
        try:
            payload = attempt(worker.task, cloudpickle.loads(blob), worker.limited)
            data = cloudpickle.dumps(payload)
        except BaseException as error:
            data = cloudpickle.dumps(Failure("failed", reason_of(error)))
        file.write(data)
    part.rename(path)


class TellingNanny(Nanny):
    """A dask nanny that tells when its worker is up and how it ended."""

    stopping = False

    def __init__(
        self,
        *args: Any,
        events: queue.SimpleQueue[Any],
        nannies: list[TellingNanny],
        **given: Any,
    ) -> None:
        given["worker_class"] = ReadyWorker
        super().__init__(*args, **given)
        self.events = events
        nannies.append(self)

    async def instantiate(self) -> Status:
        status = await super().instantiate()
        if status == Status.running:
            self.events.put(("up", self.worker_address, self.pid))
        return status

    async def _on_worker_exit(self, exitcode: int) -> None:
        self.events.put(("exit", self.worker_address, exitcode))
        if not self.stopping:
            await super()._on_worker_exit(exitcode)
