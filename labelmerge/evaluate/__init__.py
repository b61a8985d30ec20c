"""Inference, metrics and results."""
