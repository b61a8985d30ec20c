"""Looking at shards: verify, stats, export."""
