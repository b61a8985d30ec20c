"""What the words mean: one CSV per dataset, one row per class in the dataset's official order."""
