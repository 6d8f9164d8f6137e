"""When in a run does noise mend what the score gets wrong, and what does it cost?

The reverse SDE has the right law at any rate lam(t) if the score is right. With a score of a known
bias the rate matters: noise lets the chain forget earlier errors, and the steps must resolve it.
The rates here are none, Anderson's, and his for the noisy or the clean half of the run alone.
"""

import labcore
from labcore import use

EARLY = [[0.0, 0.0], [0.4, 0.0], [0.41, 1.0], [1.0, 1.0]]
LATE = [[0.0, 1.0], [0.4, 1.0], [0.41, 0.0], [1.0, 0.0]]

study = labcore.Study(
    name="noise_rate",
    question="Where in the run does noise pay?",
    target=use("digits_mixture"),
    process=use("vp"),
    score=[use("exact"), use("perturbed", bias=0.3)],
    grid=use("log_snr"),
    sampler=[use("stochastic_heun", lam=lam) for lam in (0.0, 1.0, EARLY, LATE)],
    nfe=[20, 50, 100],
    seed=range(3),
    metrics=["sliced_w2"],
)

if __name__ == "__main__":
    study.main()
