"""What a metric is handed: samples, and independent exact samples of the law they should have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from labcore import seeds
from labcore.processes import Process
from labcore.scores import Score
from labcore.targets import Mixture, Target


@dataclass(frozen=True, eq=False)
class Outcome:
    """Samples of one cell beside as many exact ones, both (n, *event) in data space.

    ``law`` is the exact mixture that ``reference`` was drawn from, over the flattened event, where
    there is one. ``process`` and ``score`` are the cell's, for metrics that judge the score;
    a noise floor has none, and such a metric declares floor=False. ``generator(label)`` is where a
    metric that needs randomness gets it.
    """

    samples: Tensor
    reference: Tensor
    target: Target
    law: Mixture | None
    seed: int
    process: Process | None = None
    score: Score | None = None

    def generator(self, label: str) -> torch.Generator:
        """A CPU generator that depends on the cell's seed and the label alone."""
        return seeds.generator("metric", label, self.seed)
