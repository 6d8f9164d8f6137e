"""How many score evaluations does each sampler need before the noise floor hides its error?

Real handwritten digits (a mixture fitted to scikit-learn's 8x8 images, 64 dimensions) and a ring
of Gaussians in the plane, under the VP process with exact scores: what is left of the error is
the sampler's own. Every sampler gets the same number of score evaluations and the same noise.
"""

import labcore
from labcore import use

study = labcore.Study(
    name="step_counts",
    question="How many score evaluations until the noise floor hides the sampler's error?",
    target=[use("digits_mixture"), use("gmm_ring")],
    process=use("vp"),
    grid=use("log_snr"),
    sampler=["samplers:euler_maruyama", "ancestral", "ddim", "samplers:heun", "torchsde:srk"],
    nfe=[10, 20, 40, 80, 160, 320],
    seed=range(5),
    n=2000,
    metrics=["sliced_w2", "energy", "frechet"],
)

if __name__ == "__main__":
    study.main()
