"""The rules of state and portfolio, pure."""
