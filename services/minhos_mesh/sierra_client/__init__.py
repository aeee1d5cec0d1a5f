"""Decides how Sierra Chart's data files become ticks of the mesh."""
