"""Nine toy datasets in official layouts, and the experiment on them."""
