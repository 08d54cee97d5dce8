"""Text to ids and back, and the files of a tokenizer."""
