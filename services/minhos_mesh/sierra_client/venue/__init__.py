"""Offers a DTC server as a venue of the mesh."""
