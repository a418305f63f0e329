"""Labels and predictions -> metrics, and the page that shows them.

Takes arrays; gives dictionaries of numbers and one HTML file. Must not know networks,
tables or how predictions were made.

Axis letters beside those of ``recsys_mtl.model``: ``R`` rows on which a task exists,
``P`` distinct predictions, ``U`` groups.
"""
