"""The checks that a variant must pass before it is published."""
