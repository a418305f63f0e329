"""Recipes as typed, immutable specs.

Takes YAML; gives a ``Recipe``. Must not know torch, Arrow or files other than YAML.
"""
