"""flow_nll: the entropy of the law for an exact score, the KL divergence for another."""

import math

import pytest
import torch
from click.testing import CliRunner
from torch import Generator

from labcore import MetricError, Mixture, Outcome, Process, Score, from_mixture
from labcore.cli.likelihood import likelihood_command
from labcore_linear import register_processes
from labcore_scores.exact import exact
from labcore_torchdiffeq.metric import flow_nll

PROCESSES = {entry.name: entry for entry in register_processes()}


def law(std: float) -> Mixture:
    eye = torch.eye(2).double()
    return Mixture(torch.ones(1).double(), torch.zeros(1, 2).double(), std**2 * eye[None])


def outcome(process: Process, score: Score, n: int = 64) -> Outcome:
    target = from_mixture(law(1.0))
    x = target.sample(n, Generator().manual_seed(0))
    return Outcome(x, x, target, target.mixture, 0, process, score)


def test_the_gap_is_the_divergence_of_the_law_that_the_score_belongs_to() -> None:
    """A score of N(0, 2^2 I) on data N(0, I): KL = 2 (log 2 + 1/8 - 1/2), up to the sampling."""
    process = PROCESSES["vp"]()
    wrong = outcome(process, exact(process, from_mixture(law(2.0))))
    got = flow_nll(wrong)
    x = wrong.reference
    sampled = float((law(1.0).log_prob(x) - law(2.0).log_prob(x)).mean())
    assert got["gap"] == pytest.approx(sampled, abs=5e-3)  # p_t_eps, and the prior's mismatch
    assert abs(got["gap"] - 2 * (math.log(2) + 1 / 8 - 1 / 2)) < 2 * got["error"]
    assert got["budget"] < 1e-2
    right = flow_nll(outcome(process, exact(process, from_mixture(law(1.0)))))
    assert abs(right["gap"]) < 5e-3


def test_added_channels_bound_the_density_of_data() -> None:
    process = PROCESSES["cld"]()
    got = flow_nll(outcome(process, exact(process, from_mixture(law(1.0))), n=16), n=16)
    assert -0.01 < got["gap"] < 0.5


def test_grey_levels_add_bits() -> None:
    process = PROCESSES["edm"]()
    given = outcome(process, exact(process, from_mixture(law(1.0))), n=32)
    got = flow_nll(given, spacing=0.5)
    assert got["bits"] == pytest.approx(got["nll"] / (2 * math.log(2)))
    plain = flow_nll(given)
    assert got["nll"] == pytest.approx(plain["nll"] - 2 * math.log(0.5), abs=0.3)
    assert "gap" not in got


def test_an_outcome_without_a_score_is_refused() -> None:
    target = from_mixture(law(1.0))
    x = torch.zeros(4, 2)
    with pytest.raises(MetricError, match="score"):
        flow_nll(Outcome(x, x, target, target.mixture, 0))


def test_the_command_says_the_same_of_data_it_draws() -> None:
    args = ["--target", "gaussian(d=2)", "--process", "vp", "--n", "32"]
    done = CliRunner().invoke(likelihood_command, args)
    assert done.exit_code == 0, done.output
    told = {line.split()[0]: float(line.split()[1]) for line in done.output.splitlines()}
    assert set(told) == {"nll", "error", "budget", "gap"}
    assert abs(told["gap"]) < 2e-2
    assert told["budget"] < 1e-2
    levels = CliRunner().invoke(likelihood_command, [*args, "--spacing", "0.1"])
    assert "bits" in levels.output
