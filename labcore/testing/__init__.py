"""Contracts and the exact audit, for plugin authors as much as for the lab's own tests."""

from labcore.certificates import Certificate, Check
from labcore.testing.audit import Audit, Order, audit, default_data, strong_order, weak_order
from labcore.testing.case import Broken, Case, passed, skipped
from labcore.testing.checks import CHECKS
from labcore.testing.gaussians import bures, gaussian, gaussian_score, kl
from labcore.testing.models import even_in_log, quadratic, uneven, uneven_in_log, vp
from labcore.testing.process import check_process
from labcore.testing.sampler import check_sampler
from labcore.testing.slopes import Slope, follow

__all__ = [
    "CHECKS",
    "Audit",
    "Broken",
    "Case",
    "Certificate",
    "Check",
    "Order",
    "Slope",
    "audit",
    "bures",
    "check_process",
    "check_sampler",
    "default_data",
    "even_in_log",
    "follow",
    "gaussian",
    "gaussian_score",
    "kl",
    "passed",
    "quadratic",
    "skipped",
    "strong_order",
    "uneven",
    "uneven_in_log",
    "vp",
    "weak_order",
]
