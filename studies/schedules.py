"""Which time grid makes the most of a given number of steps, and does the sampler change it?

Five grids under three processes: the grid that suits one process and sampler can be the worst of
another. Exact scores, so the differences are discretisation alone; the samples are compared with
the exact law at t_eps, so truncation does not enter.
"""

import labcore
from labcore import use

study = labcore.Study(
    name="schedules",
    question="Which time grid makes the most of a given number of steps?",
    target=[use("digits_mixture"), use("gmm_ring")],
    process=[use("vp"), use("edm"), use("vp_cosine")],
    grid=["uniform", "quadratic", "log_snr", "karras", "cosine"],
    sampler=["ddim", "samplers:heun", "ancestral"],
    nfe=[8, 16, 32, 64],
    seed=range(3),
    n=500,
    start="exact",
    against="t_eps",
    metrics=["sliced_w2", "energy"],
)

if __name__ == "__main__":
    study.main()
