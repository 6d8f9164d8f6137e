"""Worker processes on this machine: a dask cluster on loopback that survives its tasks.

Each worker holds the task and is handed two blocks at most, the second so that it need not wait.
A payload is a file that appears whole; hence, whatever kills a worker, what it had finished is
kept, and the block it was in is the one that had begun.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle
import dask
from distributed import Client, Future, LocalCluster
from distributed.scheduler import KilledWorker
from distributed.system import MEMORY_LIMIT
from distributed.utils import silence_logging_cmgr

from labcore.engine import Failure
from labcore.engine.host import interrupts_held, restored_environment, unguarded_main
from labcore.engine.worker import TellingNanny, run_block
from labcore.errors import LabError
from labcore.text import reason_of

START_SECONDS = 60.0
"""The longest that a worker may take to start."""

_DEPTH = 2
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), 1)
_SETTINGS: dict[str, Any] = {
    "distributed.scheduler.worker-saturation": 1.0,
    # A lost worker fails its blocks at once: whether to run them again is decided here.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    # A block may hold the interpreter for as long as its deadline allows.
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # Workers that crash in turn are to be started again, however often they are seen missing.
    "distributed.deploy.lost-worker-timeout": "365 days",
    # The default's MALLOC_TRIM_THRESHOLD_ costs small networks more than half their speed.
    "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


@dataclass(eq=False)
class _Job:
    """A block on its way: where its payload will appear, and since when it is its turn."""

    block: Any
    tries: int = 0
    path: Path = Path()
    future: Future | None = None
    since: float = 0.0
    overdue: bool = False

    def began(self) -> bool:
        return self.path.with_suffix(".part").exists()

    def payload(self) -> Any:
        data = self.path.read_bytes()
        self.path.unlink()
        try:
            return cloudpickle.loads(data)
        except Exception as error:
            return Failure("failed", f"its payload cannot be read: {reason_of(error)}")


class Cluster:
    """Workers that run one task; a context manager that leaves no process behind."""

    def __init__(self, task: Callable[[Any], Any], workers: int, memory: int | None) -> None:
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.room = memory or MEMORY_LIMIT // workers
        self.running: dict[str, deque[_Job]] = {}
        self.pids: dict[str, int] = {}
        self.nannies: list[TellingNanny] = []
        self.others = set(multiprocessing.active_children())
        self.blob, self.workers = cloudpickle.dumps(task), workers
        self.stack = ExitStack()
        self.sent = 0

    def __enter__(self) -> Cluster:
        try:
            with interrupts_held():
                self._start()
        except Exception as error:
            self.__exit__()
            raise LabError(
                f"workers: they could not be started ({reason_of(error)}); use workers=0 to run "
                "in this process"
            ) from error
        except KeyboardInterrupt:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.stack.enter_context(silence_logging_cmgr(CRITICAL))  # beyond the cluster's own end
        self.stack.enter_context(restored_environment([*_ENVIRONMENT, "PYTHONHASHSEED"]))
        self.stack.enter_context(unguarded_main())
        folder = tempfile.mkdtemp(prefix="labcore-")
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self.stack.enter_context(dask.config.set({**_SETTINGS, "temporary-directory": folder}))
        self.folder = Path(folder)
        self.stack.callback(self._stop)  # also those of a cluster that did not come up
        self.cluster = LocalCluster(
            n_workers=self.workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=CRITICAL,
            worker_class=TellingNanny,
            memory_limit=min(MEMORY_LIMIT, self.room + 2**30),
            local_directory=folder,
            death_timeout=START_SECONDS,
            events=self.events,
            nannies=self.nannies,
            blob=self.blob,
            room=self.room,
        )
        self.stack.callback(self.cluster.close, timeout=10)
        self.stack.callback(self._stop)
        self.client = self.stack.enter_context(Client(self.cluster, set_as_default=False))

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        with interrupts_held():  # a second Ctrl-C must not leave processes behind
            self.stack.close()

    def _stop(self) -> None:
        """End all workers at once: what they had to say is in files."""
        for nanny in self.nannies:
            nanny.stopping = True
        for process in set(multiprocessing.active_children()) - self.others:
            if process.name.startswith("Dask Worker"):
                process.kill()

    def run(
        self,
        blocks: Iterable[Any],
        timeout: float | None,
        split: Callable[[Any], Sequence[Any]] | None,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (block, payload or Failure) as blocks end."""
        waiting: deque[_Job] = deque()
        fresh = map(_Job, blocks)
        while self._submit(waiting, fresh):
            match self._event(timeout):
                case "up", address, pid:
                    self.running[address], self.pids[address] = deque(), pid
                case "done", address, job:
                    yield from self._done(address, job)
                case "exit", address, code:
                    for job in self.running.pop(address, ()):
                        if job.path.exists():
                            yield job.block, job.payload()
                        elif job.began():
                            yield from self._lost(job, code, timeout, split, waiting)
                        else:
                            waiting.appendleft(_Job(job.block, job.tries))

    def _submit(self, waiting: deque[_Job], fresh: Iterator[_Job]) -> bool:
        """Hand out blocks, first one to each worker; whether there is more to wait for."""
        spent = False
        for depth in range(1, _DEPTH + 1):
            for address, jobs in self.running.items():
                if len(jobs) >= depth:
                    continue
                job = waiting.popleft() if waiting else next(fresh, None)
                spent = job is None
                if job is None:
                    break
                self._send(job, address)
                jobs.append(job)
        return any(self.running.values()) or bool(waiting) or not spent

    def _send(self, job: _Job, address: str) -> None:
        self.sent += 1
        job.path = self.folder / f"{self.sent}.payload"
        job.since = time.monotonic()
        blob = cloudpickle.dumps(job.block)
        key = job.path.name
        job.future = self.client.submit(run_block, blob, str(job.path), workers=[address], key=key)
        job.future.add_done_callback(lambda _: self.events.put(("done", address, job)))

    def _event(self, timeout: float | None) -> tuple[Any, ...]:
        """What happens next; a block whose time is over has its worker killed on the way."""
        begun = time.monotonic()
        wait = 0.0  # what has happened already comes before any deadline
        while True:
            with suppress(queue.Empty):
                event: tuple[Any, ...] = self.events.get(timeout=wait)
                return event
            now = time.monotonic()
            if not self.running and now - begun > START_SECONDS:
                raise LabError("workers: they end and do not start again; use workers=0")
            wait = START_SECONDS
            for address, jobs in self.running.items():
                if timeout is None or not jobs or jobs[0].overdue:
                    continue
                left = jobs[0].since + timeout - now
                jobs[0].overdue = left <= 0
                if jobs[0].overdue:
                    _end(self.pids[address])
                else:
                    wait = min(wait, left)

    def _done(self, address: str, job: _Job) -> Iterator[tuple[Any, Any]]:
        """A block that ended on a living worker; those of a dead one are for its exit."""
        jobs = self.running.get(address, deque())
        if job not in jobs or job.future is None:
            return
        if job.path.exists():
            payload = job.payload()
        elif job.future.status == "error" and not isinstance(job.future.exception(), KilledWorker):
            payload = Failure("failed", reason_of(job.future.exception()))
        else:
            return
        jobs.remove(job)
        for follower in list(jobs)[:1]:
            follower.since = time.monotonic()
        yield job.block, payload

    def _lost(
        self,
        job: _Job,
        code: int,
        timeout: float | None,
        split: Callable[[Any], Sequence[Any]] | None,
        waiting: deque[_Job],
    ) -> Iterator[tuple[Any, Any]]:
        """A block that took its worker with it: in parts, once more, or given up."""
        parts = split(job.block) if split else ()
        if len(parts) > 1:
            waiting.extend(map(_Job, parts))
        elif job.overdue:
            reason = (
                f"ran longer than {timeout:g} s and was stopped; allow it more or leave it out"
            )
            yield job.block, Failure("timeout", reason)
        elif job.tries == 0 and code != -signal.SIGTERM:
            waiting.append(_Job(job.block, tries=1))
        else:
            yield job.block, Failure("killed", _how(code, self.room, job.tries + 1))


def _how(code: int, room: int, times: int) -> str:
    """How a worker ended, from its exit code."""
    often = " twice" if times > 1 else ""
    if code == -signal.SIGTERM:  # the nanny's way to end a worker that is too large
        return f"needed more memory than {room / 1e9:.3g} GB; give it more or leave it out"
    if code == -signal.SIGKILL:
        return f"its process was killed{often}, perhaps for want of memory; leave it out"
    if code < 0:
        return f"its process crashed{often} ({signal.Signals(-code).name}); leave it out"
    return f"its process ended itself{often} with exit code {code}; leave it out"


def _end(pid: int | None) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
