"""Takes market data in, numbers it, keeps it and gives it to every reader."""
