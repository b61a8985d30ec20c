"""pixel embeddings x label vectors -> loss."""
