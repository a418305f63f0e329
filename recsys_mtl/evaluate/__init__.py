"""Labels and predictions -> metrics, and the page that shows them.

Takes arrays; gives dictionaries of numbers and one HTML file. Must not know networks,
tables or how predictions were made.
"""
