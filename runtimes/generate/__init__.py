"""`slmx generate`: where its prompt comes from, a story in turns, and what it writes and shows."""
