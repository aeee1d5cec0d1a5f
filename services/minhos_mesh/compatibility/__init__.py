"""Which change of a contract breaks whom: pure rules over descriptor sets, shared by the registry and the command line."""
