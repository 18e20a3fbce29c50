"""Comparing records: what belongs together, by how much it differs, and what may be concluded."""
