"""People compare endings on a blind page, and their answers are read back."""
