"""MinhOS Mesh: a trading system built as a mesh of gRPC services."""
