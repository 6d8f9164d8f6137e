"""The reverse SDE family, integrated by torchsde.

    dX = [ A X - (1 + lam^2)/2 G G^T s(X, t) ] dt + lam G dWbar,   T down to t_eps

G does not depend on the state: the noise is additive, the Ito and the Stratonovich form are one,
and each method runs in the form it is made for.
"""

import labcore
from labcore_torchsde.adaptive import adaptive
from labcore_torchsde.fixed import METHODS, entry


@labcore.hookimpl
def register_samplers() -> list[labcore.Entry]:
    return [*(entry(name, method) for name, method in METHODS.items()), adaptive]
