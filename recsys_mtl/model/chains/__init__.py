"""How tasks that follow one another are tied: impression, click, order."""

from recsys_mtl.model.chains._base import AbstractChain, Logits
from recsys_mtl.model.chains.aitm import AITM
from recsys_mtl.model.chains.esmm import ESMM
from recsys_mtl.model.chains.independent import Independent

__all__ = ["AITM", "ESMM", "AbstractChain", "Independent", "Logits"]
