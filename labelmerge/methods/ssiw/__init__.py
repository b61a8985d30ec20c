"""SSIW: label sentences as the classifier (Yin et al., IJCV 2024)."""
