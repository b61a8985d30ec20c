"""Depth from one image, with or without labels as a second input (SSIW, section 4.3)."""
