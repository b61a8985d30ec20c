"""images -> pixel embeddings."""
