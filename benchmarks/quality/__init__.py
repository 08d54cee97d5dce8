"""How good a model's text is."""
