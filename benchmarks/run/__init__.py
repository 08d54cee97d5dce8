"""Measuring: cases, fresh processes, what each of them runs."""
