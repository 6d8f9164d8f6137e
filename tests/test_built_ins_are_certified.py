"""Every built-in sampler is certified: the whole battery, from the registry, nothing left out."""

import pytest

import labcore
from labcore.certification import certify
from labcore.testing import CHECKS

ADAPTED = {"kdiffusion", "diffusers", "azula"}
"""Plugins that run other libraries' samplers as they were published, faults and all."""

REGISTRY = labcore.load_registry()
PLUGINS = {record.name for record in REGISTRY.records if record.distribution == "labcore"}
SAMPLERS = [
    name for name, _ in REGISTRY.all("sampler") if name.partition(":")[0] in PLUGINS - ADAPTED
]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_built_in_is_certified(name: str) -> None:
    """On VP, or on the first process that gives what it needs."""
    (certificate,) = certify(name)
    certificate.require()
    assert certificate.complete
    assert [check.name for check in certificate.checks] == list(CHECKS)


def test_all_plugins_with_samplers_of_ours_are_there() -> None:
    assert {"samplers", "torchdiffeq", "torchsde"} == {n.partition(":")[0] for n in SAMPLERS}
    assert len(SAMPLERS) > 80
