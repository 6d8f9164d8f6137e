"""Which sampler gives the best digits from a network that has seen only 1617 of them?

A small convolutional network is trained on scikit-learn's handwritten digits, 8 x 8 pixels, in
some three minutes of one core, once, and kept beside the store. Every sampler then gets the same
number of its evaluations and the same noise. C2ST asks a classifier to tell the samples from
digits; label_entropy asks another which digit each sample is, and how surely. ``--plots FOLDER``
draws the sheets of samples.
"""

import labcore
from labcore import use

study = labcore.Study(
    name="digits",
    question="Which sampler gives the best digits from a trained network, in how many calls?",
    target=use("digits"),
    process=use("vp"),
    score=use(
        "trained",
        network="convolutional(width=32, depth=1)",
        objective="dsm",
        reading="edm",
        steps=6000,
        batch=128,
        lr=2e-3,
    ),
    grid=use("log_snr"),
    sampler=["ancestral", "ddim", "samplers:heun", "dpmpp_2m"],
    nfe=[8, 16, 32, 64],
    seed=range(5),
    n=200,
    metrics=["c2st", "sliced_w2", "label_entropy"],
)

if __name__ == "__main__":
    study.main()
