"""Decides how the DTC protocol is spoken: bytes and JSON to messages and back, sessions and orders as pure functions."""
