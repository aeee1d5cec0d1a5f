"""Decides how Sierra Chart is stood in for: files that grow as its files do, from a random walk or a recording."""
