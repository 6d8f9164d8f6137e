"""Do general-purpose solvers hold up beside samplers made for diffusion, at equal cost?

Fixed-step methods of torchdiffeq on the probability-flow ODE and of torchsde on the reverse SDE
beside the lab's own, with the same number of score evaluations, the same noise and the same grid.
"""

import labcore
from labcore import use

study = labcore.Study(
    name="solvers",
    question="Do general-purpose solvers hold up beside samplers made for diffusion?",
    target=[use("digits_mixture"), use("gmm_ring")],
    process=use("vp"),
    grid=use("log_snr"),
    sampler=[
        "ddim",
        "samplers:heun",
        "ancestral",
        "samplers:euler_maruyama",
        "torchdiffeq:midpoint",
        "torchdiffeq:rk4",
        "torchsde:euler",
        "torchsde:srk",
        "torchsde:heun",
    ],
    nfe=[8, 16, 32, 64, 128],
    seed=range(3),
    n=1000,
    metrics=["sliced_w2", "energy"],
)

if __name__ == "__main__":
    study.main()
