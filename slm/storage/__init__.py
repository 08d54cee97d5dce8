"""Files and folders that appear whole or not at all: locks, hashes, owners, and readers of JSON."""
