"""The control plane of the mesh: leases, discovery, supervision and health."""
