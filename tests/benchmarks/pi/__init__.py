"""Tests of the emulated Raspberry Pis."""
