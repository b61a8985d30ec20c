"""The loop, its presets and its log."""
