"""Runs the command as `python -m slm`, which is how `accelerate launch -m slm` starts it."""

from slm.cli import main

main()
