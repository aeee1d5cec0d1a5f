"""Rules of risk: limits, named checks, reservations, breaker, sizing. Pure functions on exact integers."""
