"""Faulty samplers beside their correct twins, each with the check that must catch it."""

from zoo import coefficients, conduct, numerics, randomness
from zoo.keeping import TWINS, ZOO, Specimen

__all__ = ["TWINS", "ZOO", "Specimen", "coefficients", "conduct", "numerics", "randomness"]
