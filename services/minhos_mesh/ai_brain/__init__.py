"""The AI brain: market data in, signals with reasons out."""
