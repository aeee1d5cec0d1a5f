"""Rules and values that all venues share."""
