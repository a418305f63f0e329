"""The command line: the one part of the library that may import the shells."""

from recsys_mtl.cli.app import main

__all__ = ["main"]
