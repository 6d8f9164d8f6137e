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
    target=[
        use(
            "mixture",
            weights=[0.5, 0.3, 0.2],
            means=[[-1.5, 0.0], [1.0, 0.8], [0.3, -1.2]],
            covs=[
                [[0.06, 0.03], [0.03, 0.08]],
                [[0.03, 0.0], [0.0, 0.1]],
                [[0.1, -0.04], [-0.04, 0.05]],
            ],
        ),
        use("digits_mixture"),
    ],
    process=use("vp"),
    score=[
        "exact",
        use("perturbed", bias=0.2),
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
