"""The machine: processor, memory, known problems, timing."""
