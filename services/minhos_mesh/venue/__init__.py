"""What every venue of this program says and asks in the same way: orders, errors, and the contract of a venue."""
