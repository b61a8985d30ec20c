"""A folder → its recipe: looks at what lies in it, and writes the TOML and the CSV of its classes."""
