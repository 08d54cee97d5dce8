"""The machine: its processor and memory, and measuring time."""
