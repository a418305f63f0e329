"""A trained network and everything it needs -> one sealed folder, and back.

Takes a recipe, feature tables, weights and metrics; gives a folder that serving loads.
Must not know requests, HTTP or how weights were trained.
"""
