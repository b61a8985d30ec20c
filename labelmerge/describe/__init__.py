"""names -> descriptions: what each dataset means by its words."""
