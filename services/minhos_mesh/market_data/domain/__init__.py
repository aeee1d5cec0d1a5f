"""Decides the rules of market data: what is accepted, how it is numbered, what is kept and what each reader gets."""
