"""Learned scores: a recipe as plain data, trained once, kept by its hash, resumed to the bit."""

from labcore.learn.checkpoints import Trained, load
from labcore.learn.recipe import Recipe
from labcore.learn.train import Progress, train

__all__ = ["Progress", "Recipe", "Trained", "load", "train"]
