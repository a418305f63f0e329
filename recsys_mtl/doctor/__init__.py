"""Is this machine fit?

Takes nothing; gives checks with advice. Must not know recipes or models.
"""

from recsys_mtl.doctor.check import Check, State, examine
from recsys_mtl.doctor.machine import Machine, probe

__all__ = ["Check", "Machine", "State", "examine", "probe"]
