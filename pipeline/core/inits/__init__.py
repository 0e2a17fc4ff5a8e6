"""Inits: how row 0 of a fit is chosen; importing a module registers the inits in it."""

from pipeline.core.inits import clusters, given, points, searches
from pipeline.core.inits.registry import INITS

__all__ = ["INITS", "clusters", "given", "points", "searches"]
