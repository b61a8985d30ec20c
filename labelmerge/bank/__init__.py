"""The bank: one unit vector for every label, in immutable versions."""
