"""The page that shows a merge."""
