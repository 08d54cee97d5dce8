"""What a variant must pass before it is published."""
