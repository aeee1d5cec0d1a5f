"""Decides how Sierra Chart's files are read and written; pure but for the writer, and shared by client and simulator."""
