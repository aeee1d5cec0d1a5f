"""The rules of the registry: who holds a lease, what a service's health is, where calls may go."""
