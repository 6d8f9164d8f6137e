"""Equal algorithms are found under any name, and unequal ones are told apart under one name."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import labcore
from labcore import InvalidOption, UnknownName, load_registry, use
from labcore.cli.fingerprint import fingerprint_command
from labcore.fingerprints import Fingerprints, fingerprint, gaps, linked, short
from labcore.testing.problems import PROBLEMS
from labcore.traces import Trace, settings, trace, variants
from labcore_samplers import ddim, heun, midpoint

IDENTITIES = [
    ("samplers:ddim", "samplers:dpm_solver_1"),
    ("samplers:ddim", "samplers:dpmpp_1m"),
    ("samplers:ancestral", "samplers:sde_dpmpp_1"),
    ("samplers:midpoint", "torchdiffeq:midpoint"),
    ("samplers:heun", "torchdiffeq:heun2"),
    ("samplers:stochastic_heun", "torchsde:heun"),
    ("samplers:sra1", "torchsde:srk"),
]
NAMES = sorted({name for pair in IDENTITIES for name in pair})


@pytest.fixture(scope="module")
def found() -> Fingerprints:
    return fingerprint([*NAMES, "torchsde:midpoint"])


def together(found: Fingerprints, *names: str) -> bool:
    return any(set(names) <= set(group.members) for group in found.groups)


@pytest.mark.parametrize("pair", IDENTITIES)
def test_known_identities_are_found(found: Fingerprints, pair: tuple[str, str]) -> None:
    assert together(found, *pair)
    assert found.difference(*pair) < 1e-11


def test_noise_free_settings_join_the_flow_methods(found: Fingerprints) -> None:
    assert together(found, "samplers:heun", "torchsde:heun(lam=0)")
    assert not together(found, "samplers:ddim", "samplers:ddim(eta=1)")
    assert found.usable["torchsde:heun"].noisy
    assert not found.usable["torchsde:heun(lam=0)"].noisy


def test_one_name_for_two_algorithms_is_told_with_the_difference(found: Fingerprints) -> None:
    named = {n.name: n for n in found.namesakes}
    assert set(named) == {"heun", "midpoint"}
    midpoint = ("samplers:midpoint", "torchdiffeq:midpoint"), ("torchsde:midpoint",)
    assert named["midpoint"].parts == midpoint
    assert 0.1 < named["midpoint"].least <= named["midpoint"].most < 10


def test_a_chain_is_told_with_the_problem_that_breaks_it(found: Fingerprints) -> None:
    """ddim(eta=1) is the ancestral step where the operators commute, and on CLD it is not; a
    sampler of scalar processes alone is equal to both."""

    @labcore.sampler(needs=("scalar",))
    def scalar_only(process, score, x, ts, noise):
        assert process.structure == "scalar"
        return load_registry().get("sampler", "ancestral")(process, score, x, ts, noise)

    names = ["samplers:ancestral", "samplers:ddim(eta=1)"]
    traces = (*(found.usable[n] for n in names), trace(scalar_only, {}, "other:scalar_only"))
    (group,) = Fingerprints(traces).groups
    assert len(group.members) == 3
    assert group.spread > 0.01
    ((problem, parts),) = group.apart
    assert problem.startswith("CLD")
    assert parts == (("samplers:ancestral",), ("samplers:ddim(eta=1)",))


def slightly_off(size: float) -> labcore.Entry:
    @labcore.sampler(order=1, evals=1)
    def perturbed(process, score, x, ts, noise):
        for y in ddim(process, score, x, ts, noise):
            yield y * (1 + size / 20)

    return perturbed


def test_a_twin_off_by_1e_8_is_close_and_not_the_same() -> None:
    exact, off = trace(ddim, {}, "a:ddim", "a:ddim"), trace(slightly_off(1e-8), {}, "b:ddim")
    found = Fingerprints((exact, off))
    assert max(gaps(exact, off).values()) == pytest.approx(1e-8 / 20, rel=0.3)
    assert [g.members for g in found.groups] == [("a:ddim",), ("b:ddim",)]
    assert found.close == ((("a:ddim",), ("b:ddim",)),)
    assert not found.namesakes  # one algorithm up to precision
    far = Fingerprints((exact, replace(trace(slightly_off(1e-2), {}, "b:ddim"), sampler="b:ddim")))
    assert not far.close
    assert [n.name for n in far.namesakes] == ["ddim"]


def test_a_sampler_close_to_itself_with_other_options_is_no_news() -> None:
    exact = trace(ddim, {}, "a:ddim", "a:ddim")
    same = replace(trace(slightly_off(1e-8), {}, "a:ddim(tables=config)", "a:ddim"), default=False)
    assert not Fingerprints((exact, same)).close


def test_the_order_of_samplers_changes_nothing(found: Fingerprints) -> None:
    some = found.traces[::4]
    whole = Fingerprints(tuple(some))
    for shuffled in list(permutations(some, len(some)))[:: max(1, 5040 // 12)][:12]:
        again = Fingerprints(shuffled)
        assert again.groups == whole.groups
        assert again.namesakes == whole.namesakes
        assert again.partly == whole.partly


def test_links_join_in_chains_and_no_further() -> None:
    at = {"a": 0.0, "b": 0.9, "c": 1.8, "d": 5.0, "e": 5.5}
    apart = linked(list(at), lambda p, q: abs(at[p] - at[q]), 1.0)
    assert apart == [("a", "b", "c"), ("d", "e")]


def test_a_switch_at_a_step_count_shows_as_equality_on_some_problems() -> None:
    @labcore.sampler(order=1)
    def switching(process, score, x, ts, noise):
        few = len(ts) - 1 < 15
        return (heun if few else midpoint)(process, score, x, ts, noise)

    made = Fingerprints((trace(midpoint, {}, "a:one"), trace(switching, {}, "b:other")))
    (partly,) = made.partly
    assert all("18" in name or "60" in name for name in partly.agree)
    assert len(partly.agree) == 2
    assert len(partly.differ) == len(PROBLEMS) - 2


def test_what_cannot_be_compared_is_a_line_and_no_end() -> None:
    @labcore.sampler(order=1)
    def raising(process, score, x, ts, noise):
        raise ValueError("no such thing")

    @labcore.sampler(order=1)
    def nan(process, score, x, ts, noise):
        for _ in ts[1:]:
            yield x / 0

    @labcore.sampler(order=1)
    def own(process: Any, score: Any, x: Tensor, ts: Tensor, noise: Any) -> Iterator[Tensor]:
        for _ in ts[1:]:
            yield x + torch.randn_like(x)

    made = Fingerprints(tuple(trace(e, {}) for e in (raising, nan, own, ddim)))
    assert [t.setting for t in made.failed] == ["raising", "nan"]
    assert made.failed[0].reason == "ValueError: no such thing"
    assert "NaN" in made.failed[1].reason
    assert [t.setting for t in made.own_noise] == ["own"]
    assert [g.members for g in made.groups] == [("ddim",)]
    json.dumps(made.plain(), allow_nan=False)


def test_problems_without_a_common_one_are_never_equal() -> None:
    one, other = (Trace(n, n, ends={p: [1.0]}) for n, p in zip("ab", PROBLEMS, strict=False))
    made = Fingerprints((one, other))
    assert len(made.groups) == 2
    json.dumps(made.plain(), allow_nan=False)


def test_variants_are_the_choices_that_make_another_algorithm() -> None:
    registry = load_registry()
    assert variants(registry.get("sampler", "ddim")) == [{"eta": 1.0}]
    assert variants(registry.get("sampler", "samplers:lms")) == [{"k": k} for k in (1, 2, 3)]
    assert {"name": 1} not in variants(registry.get("sampler", "samplers:rk4"))
    given = settings(registry, [use("ddim", eta=0.5)])
    assert [(str(of), default) for of, default in given] == [("samplers:ddim(eta=0.5)", False)]


def test_short_names_are_without_what_libraries_add() -> None:
    assert short("diffusers:EulerDiscreteScheduler") == "euler"
    assert short("kdiffusion:sample_heun") == short("azula:HeunSampler") == "heun"
    assert short("kdiffusion:sample_dpm_2") == short("samplers:dpm_2") == "dpm2"


def test_bad_requests_are_refused() -> None:
    with pytest.raises(InvalidOption, match="choose one in"):
        fingerprint(["ddim"], tolerance=1.0)
    with pytest.raises(UnknownName, match="did you mean"):
        fingerprint(["ddimm"])


def test_the_command_prints_groups_and_the_same_as_json() -> None:
    names = ["ddim", "dpm_solver_1", "samplers:midpoint", "torchsde:midpoint", "--workers", "0"]
    said = CliRunner().invoke(fingerprint_command, names)
    assert said.exit_code == 0, said.output
    assert "samplers:ddim = samplers:dpm_solver_1" in said.stdout
    assert "midpoint: samplers:midpoint | torchsde:midpoint; they differ by 1." in said.stdout
    told = json.loads(CliRunner().invoke(fingerprint_command, [*names, "--json"]).stdout)
    assert ["samplers:ddim", "samplers:dpm_solver_1"] in [g["members"] for g in told["same"]]
    marked = CliRunner().invoke(fingerprint_command, [*names, "--markdown"]).stdout
    assert "## The same algorithm, to 1e-10\n\n- " in marked
