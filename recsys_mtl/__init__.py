"""Multi-task recommendation, read in the order data flows.

config -> features -> data -> model -> train -> evaluate -> export -> rank
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
