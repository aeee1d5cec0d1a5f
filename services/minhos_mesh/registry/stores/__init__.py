"""The engines that keep what the registry knows."""
