"""descriptions -> bank: one unit vector for every label."""
