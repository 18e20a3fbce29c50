"""Weights of other forms and from elsewhere, turned into canonical ones."""
