"""Does the best sampler on exact scores stay the best on learned ones, and where not?

The same targets, grids, budgets and noise under three scores: exact, exact with the same bias
everywhere, and a network trained for a quarter of a minute. ``labcore reversals STORE`` lists the
pairs of samplers of which one is better on exact scores and the other on learned ones, both beyond
their intervals over seeds. On the digits a bias turns the order of ODE solvers and ancestral
sampling round at every budget, since noise forgets it; this network's error does not, and lets
Heun pass DDIM and ancestral sampling at 8 calls. On the ring nothing turns round.
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
