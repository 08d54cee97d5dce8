"""Models of other programs become slmx checkpoints."""
