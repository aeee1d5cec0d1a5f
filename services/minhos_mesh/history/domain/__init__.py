"""Decides the rules of history: what a bar is, when a session is, which ticks are accepted and which recording is read."""
