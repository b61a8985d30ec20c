"""What a merged dataset is written as, a module for each format."""
