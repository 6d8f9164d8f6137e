"""Every process with every kind of sampler, through the whole lab, ends at the noise floor."""

from pathlib import Path

import labcore
from labcore import lab, use
from labcore.stats import floors, summarise
from labcore.store import open_store


def test_samples_are_exact_up_to_noise_on_every_process(tmp_path: Path) -> None:
    """100 steps from the exact p_T, compared with p_{t_eps}: only discretisation is left.

    The unbiased energy distance of each (process, sampler) is within 6 standard deviations of
    its floor's mean: what 10 repeats of a null with some 80 settings allow; a sampler that is
    wrong on one structure is off by hundreds.
    """
    registry = labcore.load_registry()
    study = labcore.Study(
        name="every",
        question="does every sampler work on every process?",
        target=use("gmm_ring"),
        process=[name for name, _ in registry.all("process")],
        grid="log_snr",
        sampler=[
            "ancestral",
            "ddim",
            "samplers:heun",
            "samplers:euler_maruyama",
            "torchsde:srk",
            "torchdiffeq:dopri5",
        ],
        steps=100,
        n=500,
        start="exact",
        against="t_eps",
        metrics="energy",
    )
    summary = lab.run_study(study, tmp_path / "s")
    assert summary.failed == 0
    with open_store(tmp_path / "s") as store:
        frame = store.frame()
    null = floors(frame).set_index("process")
    got = summarise(frame)
    assert len(got) == 6 * len(registry.all("process"))
    for row in got.itertuples():
        floor = null.loc[row.process]
        assert abs(row.mean - floor["mean"]) < 6 * floor["sd"], (row.process, row.sampler)
