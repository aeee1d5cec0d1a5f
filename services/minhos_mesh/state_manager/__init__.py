"""Owns the state of the system, projects the portfolio from events, and keeps the audit log."""
