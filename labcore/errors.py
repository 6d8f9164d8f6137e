"""Every error a user can cause, with the exit code it means.

A message is one line that names the thing, the reason and the remedy:
``grid 'karras': rho is -1, it must be positive; try rho=7``.
"""


class LabError(Exception):
    """Bad usage, study or plugin (exit code 2)."""

    exit_code = 2


class PluginError(LabError):
    """A plugin that was asked for cannot be used."""


class Unavailable(PluginError):
    """A plugin whose optional library is not installed; the message says what to install."""


class UnknownName(LabError):
    """A name that no plugin registers, or that several do."""


class InvalidOption(LabError):
    """An option an entry does not have, or a value it does not take."""


class InvalidStudy(LabError):
    """A study or cell that cannot be run as it is written."""


class InvalidGrid(LabError):
    """Times that are not strictly decreasing within the process's range."""


class InvalidProcess(LabError):
    """A process whose operators are not those of a linear SDE, or do not fit the data."""


class ScoreError(LabError):
    """A score that returned NaN, Inf, another shape or another dtype."""

    exit_code = 1


class SamplerError(LabError):
    """A sampler that broke its contract while it ran."""

    exit_code = 1


class MetricError(LabError):
    """A metric that could not be computed on an outcome."""

    exit_code = 1


class TrainingError(LabError):
    """Training that cannot go on: a loss that is no number, or no data to train on."""

    exit_code = 1


class NotMade(TrainingError):
    """A score that must be trained first, where that is not to be done."""


class StoreError(LabError):
    """A results store that is busy, damaged or of a newer schema (exit code 3)."""

    exit_code = 3
