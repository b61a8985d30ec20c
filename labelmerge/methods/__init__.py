"""Ways to supervise."""
