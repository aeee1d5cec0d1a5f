"""Where the journal is kept: engines behind one interface."""
