"""Training to the end: in a locked folder, with checkpoints, whoever interrupts."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from labcore.errors import NotMade, StoreError
from labcore.learn.checkpoints import Trained, is_finished, load_trained
from labcore.learn.devices import Alone, Devices, first
from labcore.learn.recipe import Recipe
from labcore.learn.session import STATE, Session, begin
from labcore.parts import Parts


@dataclass(frozen=True)
class Progress:
    """Where training stands: steps done, the last loss, steps a second, and the validation loss
    where it was just measured."""

    step: int
    steps: int
    loss: float
    rate: float
    validation: float | None = None

    def __str__(self) -> str:
        told = f"step {self.step}/{self.steps}, loss {self.loss:.4g}"
        if self.validation is not None:
            told += f", held out {self.validation:.4g}"
        return f"{told}, {self.rate:.3g} steps/s"


Report = Callable[[Progress], None]


def train(
    recipe: Recipe,
    parts: Parts,
    folder: str | Path,
    *,
    report: Report | None = None,
    every: float = 10.0,
    device: str | torch.device = "cpu",
    devices: Devices | None = None,
) -> Trained:
    """The score that ``recipe`` makes, from ``folder`` where it has been made before.

    A checkpoint is written every ``every`` seconds and when training is interrupted; the next
    call continues from it, to the weights of an uninterrupted training, bit by bit. A process
    that finds another at the same recipe waits for it. It runs on ``device``, or on ``devices``,
    which are several processes (see labcore.learn.devices). Raises TrainingError for a loss that
    is NaN or Inf, StoreError where the folder is damaged or cannot be written, NotMade where
    ``parts`` are only to load, and what building the parts raises.
    """
    recipe = recipe.resolve(parts.registry)
    home = Path(folder) / recipe.key
    if devices or not is_finished(home):  # several come in together, or not at all
        if not parts.make:
            raise NotMade(f"training: {recipe} is not trained yet; train it first ({home})")
        crew = devices or Alone(torch.device(device))
        busy = f"training: another process is at {recipe}; waiting for it"
        with first(crew, lambda: locked(home, lambda: parts.tell(busy))):
            if not is_finished(home):
                _train(recipe, parts, home, report, every, crew)
    return load_trained(home, parts)


def _train(
    recipe: Recipe,
    parts: Parts,
    home: Path,
    report: Report | None,
    every: float,
    crew: Devices,
) -> None:
    drawn = [crew.device] if crew.device.type == "cuda" else []
    with torch.random.fork_rng(devices=drawn):  # which layers such as dropout draw from
        session = begin(recipe, parts, home, crew)
        if (home / STATE).exists():
            session.restore()
        else:
            session.save()  # what cannot be written is found out before the work
        _drive(session, report, every)
        session.finish()


def _drive(session: Session, report: Report | None, every: float) -> None:
    """Steps to the end; a checkpoint between two steps now and then, and on the way out.

    An error within a step leaves the last one: the session is then between two states.
    """
    steps, first, spent = session.recipe.steps, session.step, session.seconds
    begun = saved = time.perf_counter()
    look = max(1, steps // 20)
    with interrupts_held() as interrupted:
        while session.step < steps:
            loss, validation = session.advance(), None
            if session.step % look == 0 or session.step == steps:
                validation = session.validate(loss)
            now = time.perf_counter()
            session.seconds = spent + now - begun
            try:
                if report:
                    rate = (session.step - first) / max(now - begun, 1e-9)
                    report(Progress(session.step, steps, loss, rate, validation))
                if session.devices.any(interrupted()):
                    raise KeyboardInterrupt
            except BaseException:
                session.save()
                raise
            if now - saved > every and session.step < steps:
                session.save()
                saved = time.perf_counter()


@contextmanager
def interrupts_held() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C, and SIGTERM where it means the same, wait to be asked for; a second one does
    not wait."""
    caught: list[int] = []

    def hold(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    with ExitStack() as undo:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is signal.default_int_handler:
                    undo.callback(signal.signal, number, signal.signal(number, hold))
        yield lambda: bool(caught)


@contextmanager
def locked(home: Path, waits: Callable[[], None]) -> Iterator[None]:
    """The folder, for this process alone; others that train the same recipe wait."""
    import fcntl
    import os

    with ExitStack() as held:
        try:
            home.mkdir(parents=True, exist_ok=True)
            mode = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(home / ".lock", mode, 0o666)
            held.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(lock, fcntl.LOCK_EX)
            for left in home.glob("*.part"):  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"training: {home} cannot be used ({error.strerror}); name a folder that can be "
                "written"
            ) from error
        yield
