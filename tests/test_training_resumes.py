"""A training that is stopped anywhere, by whatever, ends with the weights of one that is not."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainings import SMALL, checkpointed, equal, small, train

import labcore
from labcore import Parts, TrainingError, load_registry, read_use

HERE = Path(__file__).parent


def of(entry: labcore.Entry) -> Parts:
    return Parts(load_registry([entry]))


def test_kills_at_random_moments_leave_no_trace(tmp_path: Path) -> None:
    script = [sys.executable, str(HERE / "small_trainings.py"), "4", str(tmp_path)]
    out = subprocess.run(script, capture_output=True, text=True, timeout=300, check=True).stdout
    assert "4 kills" in out
    assert "\n0 of 4 trainings differ" in out


@pytest.mark.parametrize("name", SMALL)
def test_ctrl_c_between_and_within_steps_continues_to_the_same_weights(
    name: str, tmp_path: Path
) -> None:
    recipe = small(**SMALL[name])
    whole = train(recipe, tmp_path / "whole")

    def interrupt(at: Any) -> None:
        if at.step in (7, 23):
            signal.raise_signal(signal.SIGINT)

    for step in (7, 23):
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", report=interrupt, every=1e9)
        assert checkpointed(tmp_path / "cut") == step
    assert equal(train(recipe, tmp_path / "cut", report=lambda at: None), whole)
    assert (
        whole.facts["curve"]
        == labcore.load_trained(tmp_path / "cut" / whole.recipe.key, Parts(load_registry())).facts[
            "curve"
        ]
    )


def faulty(at: int, fault: Callable[[], float], counted: list[int]) -> labcore.Entry:
    """Denoising that calls ``fault`` in its call number ``at`` and multiplies the loss by it.

    Every second step of a small training is followed by a call for the validation loss.
    """

    @labcore.objective
    def faults(process: labcore.Process) -> Any:
        inner = load_registry().get("objective", "dsm")(process)

        def loss(model: Any, x0: Any, generator: Any) -> Any:
            counted.append(1)
            factor = fault() if len(counted) == at else 1.0
            return factor * inner(model, x0, generator)

        return loss

    return faults


def test_a_signal_within_a_step_waits_for_its_end(tmp_path: Path) -> None:
    def signalled() -> float:
        signal.raise_signal(signal.SIGINT)
        return 1.0

    recipe = small(objective="faults")
    with pytest.raises(KeyboardInterrupt):
        labcore.train(recipe, of(faulty(10, signalled, [])), tmp_path / "cut", every=1e9)
    assert checkpointed(tmp_path / "cut") == 7
    parts = of(faulty(10, lambda: 1.0, []))
    whole = labcore.train(recipe, parts, tmp_path / "whole")
    assert equal(labcore.train(recipe, parts, tmp_path / "cut"), whole)


def test_a_second_signal_does_not_wait_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    def twice() -> float:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    recipe = small(objective="faults")
    with pytest.raises(KeyboardInterrupt):
        labcore.train(recipe, of(faulty(10, twice, [])), tmp_path / "cut", every=0)
    assert checkpointed(tmp_path / "cut") == 6
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(
    bad: float, tmp_path: Path
) -> None:
    recipe, counted = small(objective="faults"), list[int]()
    parts = of(faulty(16, lambda: bad, counted))
    with pytest.raises(TrainingError, match=f"loss is {bad} at step 10; lower lr") as caught:
        labcore.train(recipe, parts, tmp_path / "cut", every=0)
    assert caught.value.exit_code == 1
    assert "checkpoint, of step 10, is kept" in str(caught.value)
    assert checkpointed(tmp_path / "cut") == 10
    mended = of(faulty(-1, lambda: 1.0, []))
    whole = labcore.train(recipe, mended, tmp_path / "whole")
    assert equal(labcore.train(recipe, mended, tmp_path / "cut"), whole)


def test_an_update_that_spoils_the_weights_spoils_no_checkpoint(tmp_path: Path) -> None:
    class Spoils(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, loss: Any) -> Any:
            return loss.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient * torch.nan

    class Once:
        def __rmul__(self, loss: Any) -> Any:
            return Spoils.apply(loss)

        def __mul__(self, loss: Any) -> Any:
            return Spoils.apply(loss)

    recipe = small(objective="faults")
    for call, good in ((14, 9), (16, 10)):  # told by the validation after it, or the next loss
        parts = of(faulty(call, Once, []))  # type: ignore[arg-type]
        with pytest.raises(TrainingError, match=f"at step {good + 1}.*of step {good}, is kept"):
            labcore.train(recipe, parts, tmp_path / str(call), every=0)
        assert checkpointed(tmp_path / str(call)) == good


def test_weights_do_not_depend_on_how_often_progress_is_kept_or_told(tmp_path: Path) -> None:
    recipe, told = small(), list[int]()
    quiet = train(recipe, tmp_path / "quiet", every=1e9)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    loud = train(recipe, tmp_path / "loud", every=0, report=lambda at: told.append(at.step))
    assert equal(quiet, loud)
    assert told == list(range(1, recipe.steps + 1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_layers_that_draw_by_themselves_are_resumed_too(tmp_path: Path) -> None:
    @labcore.network
    def dropping(event: tuple[int, ...]) -> torch.nn.Module:
        inner = load_registry().get("network", "mlp")(event, width=8, depth=1)
        drop = torch.nn.Dropout(0.5)

        class Dropping(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner, self.drop = inner, drop

            def forward(self, x: Any, c: Any) -> Any:
                return self.inner(self.drop(x), c)

        return Dropping()

    def stop(at: Any) -> None:
        if at.step == 13:
            raise KeyboardInterrupt

    recipe, parts = small(network="dropping"), of(dropping)
    whole = labcore.train(recipe, parts, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        labcore.train(recipe, parts, tmp_path / "cut", report=stop)
    assert equal(labcore.train(recipe, parts, tmp_path / "cut"), whole)


def test_of_two_at_one_recipe_one_trains_and_the_other_waits_and_loads(tmp_path: Path) -> None:
    recipe, inside, waiting = small(), threading.Event(), threading.Event()
    steps: dict[str, list[int]] = {"first": [], "second": []}
    made: dict[str, labcore.Trained] = {}

    def work(name: str) -> None:
        def report(at: Any) -> None:
            steps[name].append(at.step)
            inside.set()
            assert waiting.wait(60)

        parts = Parts(load_registry(), tell=lambda message: waiting.set())
        made[name] = labcore.train(recipe, parts, tmp_path, report=report)

    first = threading.Thread(target=work, args=("first",))
    second = threading.Thread(target=work, args=("second",))
    first.start()
    assert inside.wait(60)
    second.start()
    first.join(60)
    second.join(60)
    assert len(steps["first"]) == recipe.steps
    assert steps["second"] == []
    assert equal(made["first"], made["second"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_in_order_and_goes_on(number: int, tmp_path: Path) -> None:
    flags = "--target moons --process vp --network mlp(width=8,depth=1) --batch 8 --warmup 0"
    command = [sys.executable, "-m", "labcore", "train", *flags.split(), "--steps", "1000000"]
    running = subprocess.Popen(
        [*command, "--folder", str(tmp_path), "--every", "0.05"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while checkpointed(tmp_path) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    before = checkpointed(tmp_path)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "the same command goes on from it" in said
    assert checkpointed(tmp_path) >= before >= 5
    recipe = small(network="mlp(width=8,depth=1)", batch=8, warmup=0, steps=1000000)
    seen: list[int] = []

    def stop(at: Any) -> None:
        seen.append(at.step)
        raise KeyboardInterrupt

    at = checkpointed(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path, report=stop)
    assert seen == [at + 1]


def test_a_recipe_names_all_that_is_wrong_with_it() -> None:
    with pytest.raises(labcore.InvalidOption, match=r"steps=0.*shards=3.*lr=nan.*time='x'") as e:
        small(steps=0, lr=float("nan"), shards=3, time="x")
    assert e.value.exit_code == 2
    with pytest.raises(labcore.InvalidOption, match="clip='a', give a number"):
        small(clip="a")
    assert small(lr=1).key == small(lr=1.0).key
    assert small().key != small(objective="ism").key
    assert read_use("mlp(width=16)") == labcore.use("mlp", width=16)
