"""Does the best sampler on exact scores stay the best on learned ones, and where not?

The same targets, grids, budgets and noise under three scores: exact, exact with a stated error,
and a network trained for a quarter of a minute. Deterministic solvers of high order win where the
score is exact; noise forgets a score's errors, so that with a learned one the order of samplers
can turn round. ``labcore reversals out/learned_vs_exact.sqlite`` lists where it does: the pairs of
samplers of which one is better on exact scores and the other on learned ones, both beyond their
intervals over seeds.
"""

import labcore
from labcore import use

study = labcore.Study(
    name="learned_vs_exact",
    question="Does the best sampler on exact scores stay the best on learned ones?",
    target=[use("gmm_ring", modes=6, std=0.15), use("digits_mixture")],
    process=use("vp"),
    score=[
        "exact",
        use("perturbed", bias=0.1),
        use("trained", network="mlp(width=128, depth=2)", steps=2000, batch=256, reading="edm"),
    ],
    grid=use("log_snr"),
    sampler=["ddim", "samplers:heun", "dpmpp_2m", "ancestral", "sde_dpmpp_2m"],
    nfe=[8, 16, 48],
    seed=range(5),
    n=500,
    metrics=["sliced_w2", "energy"],
)

if __name__ == "__main__":
    study.main()
