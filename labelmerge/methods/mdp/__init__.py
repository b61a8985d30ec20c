"""MDP: pixel-to-prototype contrastive pretraining on several datasets (Shi et al., 2021)."""
