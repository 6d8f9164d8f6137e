"""Every built-in process is one linear SDE; one that is not is told which property fails."""

import re
from dataclasses import dataclass, replace

import pytest
import torch

import labcore_linear
from labcore import Diag, InvalidProcess, Mat, Process, Scalar
from labcore.testing import check_process

F64 = torch.float64
ENTRIES = {entry.name: entry for entry in labcore_linear.register_processes()}
VP, VE, OU, CLD = (ENTRIES[name] for name in ("vp", "ve", "ou", "cld"))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_built_in_process_keeps_the_contract(name):
    check_process(ENTRIES[name](**ENTRIES[name].bind({})))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vp", {"b0": 0.0, "b1": 20.0}),
        ("vp", {"b0": 9.0, "b1": 5.0, "T": 2.0}),
        ("vp_cosine", {"s": 0.1, "T": 0.9}),
        ("ve", {"sigma_min": 1.0, "sigma_max": 1.1}),
        ("ve", {"sigma_min": 1e-3, "sigma_max": 1e3}),
        ("sigma_t", {"sigma": 1.01}),
        ("edm", {"T": 1.0, "t_eps": 1e-5}),
        ("rectified_flow", {"T": 0.5}),
        ("diag_vp", {"d": 1}),
        ("diag_vp", {"d": 5, "b1": (40.0, 2.0)}),
        ("ou", {"d": 1}),
        ("ou", {"d": 6, "seed": 3}),
        ("ou", {"A": [[0.0, 1.0], [-4.0, -1.0]], "G": [[0.0, 0.0], [0.0, 1.0]], "t_eps": 0.05}),
        ("ou", {"A": [[0.3, 0.0], [2.0, -60.0]], "T": 2.0}),
        ("cld", {"b0": 0.1, "b1": 20.0, "M": 2.0, "gamma": 1.0}),
        ("rotating", {"d": 3, "omega": -20.0, "b0": 1.0, "b1": 4.0}),
    ],
    ids=str,
)
def test_options_keep_the_contract(name, options):
    check_process(ENTRIES[name](**ENTRIES[name].bind(options)))


@pytest.mark.parametrize("name", ["vp", "diag_vp", "ou"])
def test_conditional_covariances_follow_from_sigma_without_a_closed_form(name):
    check_process(replace(ENTRIES[name](), closed_Q=None))


@pytest.mark.parametrize("name", ["vp", "edm", "cld"])
def test_a_process_for_any_event_serves_images(name):
    check_process(ENTRIES[name](), (1, 2, 2))


def test_a_bound_process_refuses_other_data():
    with pytest.raises(InvalidProcess, match=r"shape \(2,\).*has \(3,\)"):
        check_process(OU(), (3,))


def bump(t: torch.Tensor) -> torch.Tensor:
    """Noise between two of the times at which derivatives are compared."""
    return 1 + 0.5 * torch.exp(-(((t - 0.16) / 0.01) ** 2))


@dataclass(frozen=True, eq=False)
class WrongPerturb(Process):
    def perturb(self, x0, t, z):
        return self.mean(x0, t) + self.Sigma(torch.as_tensor(t, dtype=F64)) @ z


@dataclass(frozen=True, eq=False)
class WrongPosterior(Process):
    def posterior(self, s, t):
        K, C = super().posterior(s, t)
        return K.T, C


@dataclass(frozen=True, eq=False)
class CholeskyFlow(Process):
    """L_s L_t^-1 carries Sigma(t) to Sigma(s) as the frozen flow does, and is not the flow."""

    def Psi(self, s, t):
        return self.Sigma(s).chol @ self.Sigma(t).chol.inv


@dataclass(frozen=True, eq=False)
class WrongEmbed(Process):
    def project(self, x):
        return x[:, 1]


def recast(process: Process, kind: type[Process]) -> Process:
    return kind(**vars(process))


vp, ve, ou, cld = VP(), VE(), OU(), CLD()
half = Scalar(torch.tensor(0.5, dtype=F64))
skew = Mat(torch.tensor([[[0.0, 1e-4], [0.0, 0.0]]], dtype=F64))
FAULTS = {
    "drift of the wrong sign": ("dPhi/dt = A Phi", replace(vp, A=lambda t: -vp.A(t))),
    "transposed drift": ("dPhi/dt = A Phi", replace(ou, A=lambda t: ou.A(t).T)),
    "noise twice": ("Lyapunov", replace(vp, G=lambda t: 2 * vp.G(t))),
    "noise on the position": (
        "Lyapunov",
        replace(cld, G=lambda t: Mat(cld.G(t).param.flip(1, 2))),
    ),
    "noise between the times": (
        "int Phi G",
        replace(vp, G=lambda t: Scalar(vp.G(t).param * bump(t))),
    ),
    "sigma(0)^2 left in": (
        "clean start",
        replace(ve, Sigma=lambda t: ve.Sigma(t) + Scalar(torch.full_like(t, 1e-4))),
    ),
    "Phi at equal times": ("Phi(t,t) = I", replace(vp, Phi=lambda t, s: 1.01 * vp.Phi(t, s))),
    "Phi no semigroup": (
        "semigroup",
        replace(vp, Phi=lambda t, s: Scalar(torch.exp(-(vp.closed_Q(t, s).param) / 2))),
    ),
    "Phi backwards in time": (
        "semigroup",
        replace(ou, Phi=lambda t, s: ou.Phi(torch.maximum(t, s), torch.minimum(t, s))),
    ),
    "Sigma not symmetric": (
        "Sigma(t) symmetric",
        replace(ou, Sigma=lambda t: ou.Sigma(t) + skew),
    ),
    "Sigma indefinite": (
        "Sigma(t) positive definite",
        replace(ou, Sigma=lambda t: ou.Sigma(t) - Scalar(torch.full_like(t, 0.2))),
    ),
    "closed_Q of another process": (
        "composition",
        replace(vp, closed_Q=lambda t, s: half @ vp.Q(t, s)),
    ),
    "perturb without a factor": ("perturb, covariance", recast(vp, WrongPerturb)),
    "posterior transposed": ("posterior, K Sigma(t)", recast(ou, WrongPosterior)),
    "Cholesky for gDDIM's factor": ("dPsi/ds", recast(cld, CholeskyFlow)),
    "project that takes the velocity": ("embed", recast(cld, WrongEmbed)),
    "float32": (
        "structure: Sigma(t) is torch.float32",
        replace(vp, Sigma=lambda t: Scalar(vp.Sigma(t).param.float())),
    ),
    "a matrix in a scalar process": (
        "structure: A(t) is a Diag",
        replace(vp, A=lambda t: Diag(vp.A(t).param.reshape(-1, 1).expand(-1, 2))),
    ),
    "unknown structure": ("structure: 'sparse'", replace(vp, structure="sparse")),
    "NaN at T": (
        "finite: G(t)",
        replace(vp, G=lambda t: Scalar(vp.G(t).param + torch.where(t >= 1, torch.nan, 0.0))),
    ),
    "one operator for all times": ("batch axis", replace(ou, A=lambda t: ou.A(t[None][..., 0]))),
    "times that disagree": (
        "batch axis of A(t)",
        replace(vp, A=lambda t: Scalar(vp.A(t).param + 0.1 * t.ndim)),
    ),
    "t_eps of zero": ("times", replace(vp, t_eps=0.0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault):
    prop, process = FAULTS[fault]
    with pytest.raises(InvalidProcess, match=f"^process: .*{re.escape(prop)}[^;]*; [^;]+$"):
        check_process(process)
