"""The rules of the event bus: pure, without clock, files or transport."""
