"""What was traded before: bars, sessions, the store of ticks by symbol and day, and how files get into it."""
