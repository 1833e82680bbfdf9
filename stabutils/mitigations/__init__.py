"""Ways to make retraining more stable: small frozen dataclasses that hook into the one training
loop.

Several compose in order: `Composed((LabelSmoothing(0.1), EMA(0.99)))`, or simply a tuple given to
`study.retrain`.
"""

from stabutils.mitigations.composition import Composed, price, resolve, wanted
from stabutils.training.hooks import Mitigation, atoms, describe, identity, overrides

__all__ = [
    "Composed",
    "Mitigation",
    "atoms",
    "describe",
    "identity",
    "overrides",
    "price",
    "resolve",
    "wanted",
]
