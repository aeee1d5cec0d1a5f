"""The trading engine: owns orders, positions, trading mode, trading state and the emergency stop."""
