"""Texts and images → vectors."""
