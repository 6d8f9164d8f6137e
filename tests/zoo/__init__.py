"""Faulty samplers beside their correct twins, each with the check that must catch it."""

from zoo import coefficients, conduct, numerics, randomness
from zoo.keeping import FAINT, TWINS, ZOO, Specimen

__all__ = [
    "FAINT",
    "TWINS",
    "ZOO",
    "Specimen",
    "coefficients",
    "conduct",
    "numerics",
    "randomness",
]
