"""The rules of the brain: pure, without a clock, files or messages."""
