"""Folders that labelmerge wrote → the hub or another URL, each with a card."""
