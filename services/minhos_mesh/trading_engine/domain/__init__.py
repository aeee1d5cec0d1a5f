"""Decides the rules of trading: order life cycle, positions, performance, control and signals, without any I/O."""
