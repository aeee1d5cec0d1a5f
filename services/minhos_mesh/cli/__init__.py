"""The `minhos` command."""
