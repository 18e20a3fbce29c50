"""Sweeps over batch, width, depth and couplings, and how the cost grows along them."""
