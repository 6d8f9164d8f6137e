"""Learned scores: a recipe as plain data, trained once, kept by its hash, resumed to the bit."""

from labcore.learn.checkpoints import Trained, load_trained
from labcore.learn.recipe import Recipe
from labcore.learn.training import Progress, train

__all__ = ["Progress", "Recipe", "Trained", "load_trained", "train"]
