"""Figures made from records: the plots, and the colours of backends."""
