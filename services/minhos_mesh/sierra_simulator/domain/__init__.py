"""Decides what a simulated market does; pure, seeded, without clock or files."""
