"""The agreement suite: every backend against the float64 reference, and faults planted in them that it must find."""
