"""images -> pixel embeddings; the checkpoint format.

`labelmerge.model.build.build_model` makes a model, `labelmerge.model.checkpoint` writes and reads one. Nothing is
re-exported here, so that importing this package imports no torch.
"""
