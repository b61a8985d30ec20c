"""Pictures and masks as people store them."""
