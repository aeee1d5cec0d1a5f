"""Rules of the paper venue: what an order, a fill and an account are there, and how the market moves them."""
