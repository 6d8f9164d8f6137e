"""Which objective finds the score, at equal cost of training?

Every objective trains the same network on the same mixture, or the same energy over that network,
and has as many passes through it, forward or backward:

    denoising in all its forms, explicit                 2 a step:  forward, backward
    sliced, implicit by Hutchinson                       4          the input's gradient, too
    implicit by the exact trace, D = 2                   6          two of them
    denoising and noise contrast of energies             4
    contrastive divergence of energies, k Langevin steps 2 k + 4

The learned score is held against the exact one: the Fisher divergence over t and its integral.
Three trainings of each, that differ in their seed alone, give the intervals. Measured, in
10^-3, with the half-widths of 95 % t intervals:

    esm                      0.45 +- 0.07      ism                         4.6 +- 2.0
    edm_loss, edm reading    0.64 +- 0.10      ssm                         5.8 +- 0.8
    ddpm                     1.7  +- 0.3       ssm(reduced=False)          8.7 +- 3.1
    dsm                      1.7  +- 0.3       dsm(weight='min_snr')       9.5 +- 10
    dsm of an energy         1.8  +- 0.4       nce of an energy            9.6 +- 1.6
    dsm(weight='likelihood') 3.8  +- 0.5       cd(k=2)                      42 +- 46
    ism(trace='hutchinson')  4.1  +- 0.5       cd(k=5, persistent=True)     50 +- 49
    ncsn, 10 levels          4.6  +- 1.1

Explicit matching's stable target wins, EDM's preconditioning and levels come next; what needs no
denoising target pays for the trace by fewer steps and more variance, most of all at small t.
"""

import labcore
from labcore import use

PASSES = 3200
NETWORK = "mlp(width=64,depth=2)"
ENERGY = f"energy(backbone='{NETWORK}')"

SCORES = {
    "dsm(weight='sigma2')": 2,
    "dsm(weight='likelihood')": 2,
    "dsm(weight='min_snr')": 2,
    "ncsn": 2,
    "ddpm": 2,
    "esm": 2,
    "ism": 6,
    "ism(trace='hutchinson')": 4,
    "ssm": 4,
    "ssm(reduced=False)": 4,
}
ENERGIES = {"dsm(weight='sigma2')": 4, "nce": 4, "cd(k=2)": 8, "cd(k=5, persistent=True)": 14}
LIKE = {"batch": 256, "lr": 3e-3, "ema": 0.995}


def scores(seed: int) -> list[labcore.Use]:
    """Every objective's training with this seed."""
    by_score = [
        use("trained", network=NETWORK, objective=name, steps=PASSES // cost, seed=seed, **LIKE)
        for name, cost in SCORES.items()
    ]
    preconditioned = use(
        "trained",
        network=NETWORK,
        objective="edm_loss",
        reading="edm",
        steps=PASSES // 2,
        seed=seed,
        **LIKE,
    )
    by_energy = [
        use(
            "trained_energy",
            network=ENERGY,
            objective=name,
            steps=PASSES // cost,
            seed=seed,
            **LIKE,
        )
        for name, cost in ENERGIES.items()
    ]
    return [*by_score, preconditioned, *by_energy]


study = labcore.Study(
    name="objectives",
    question="Which objective finds the score, at equal cost of training?",
    target=use("gmm_ring", modes=4, std=0.3),
    process=use("vp"),
    score=[score for seed in range(3) for score in scores(seed)],
    grid=use("log_snr"),
    sampler="ddim",
    steps=50,
    n=2000,
    metrics=["fisher", "tweedie_calibration", "score_losses", "energy"],
)

if __name__ == "__main__":
    study.main()
