"""shards -> batches."""
