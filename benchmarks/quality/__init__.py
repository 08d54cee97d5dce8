"""Measures the quality of a model's text."""
