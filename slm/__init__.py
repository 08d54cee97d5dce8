"""The language model: its shapes, its weights, and the commands that make it."""

__version__ = "0.1.0"
