"""A dataset as it lies on disk: found, listed, described."""
