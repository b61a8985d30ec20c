"""datasets -> shards: WebDataset tars with a manifest."""
