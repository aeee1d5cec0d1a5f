"""Keeps the facts of the mesh in order, on disk, and brings them to whoever cares."""
