"""The shard format: the only code that knows it."""
