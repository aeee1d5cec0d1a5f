"""The paper venue: fills orders against the market data of the mesh, with no money at stake."""
