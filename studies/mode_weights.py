"""Can a Markov chain at one noise level find how much mass each mode has?

Three separated modes of weights 0.6, 0.3 and 0.1. Chains at the lowest noise level fall into the
nearest mode and stay: their masses are those of basins of attraction, accepted or not. Annealed
chains decide between modes where noise still joins them (Song & Ermon 2019, Fig. 3), as ancestral
sampling and the oracle do: Langevin, MALA and HMC down the levels, and as correctors after a
predictor. Every sampler has the same number of evaluations of score and density.
"""

import labcore
from labcore import use

study = labcore.Study(
    name="mode_weights",
    question="Which samplers recover the weights of separated modes?",
    target=use(
        "mixture",
        weights=[0.6, 0.3, 0.1],
        means=[[-4.0, 0.0], [4.0, 0.0], [0.0, 4.0]],
        covs=[[[0.25, 0.0], [0.0, 0.25]]] * 3,
    ),
    process=use("vp"),
    grid=use("log_snr"),
    sampler=[
        use("langevin", step=0.05),
        use("mala", step=0.1),
        use("hmc", step=0.25),
        use("metropolis", step=0.5),
        use("annealed_langevin", step=0.1),
        use("annealed_mala", step=0.5),
        use("annealed_hmc", step=0.5),
        use("predictor_corrector", corrector="fixed"),
        use("predictor_corrector", corrector="snr"),
        use("predictor_metropolis", corrector="mala"),
        use("predictor_metropolis", corrector="hmc"),
        "ancestral",
        "oracle",
    ],
    nfe=[250, 1000],
    seed=range(3),
    n=2000,
    metrics=["mode_weights", "energy"],
)

if __name__ == "__main__":
    study.main()
