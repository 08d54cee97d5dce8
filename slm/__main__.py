"""Runs the command as `python -m slm`. `accelerate launch -m slm` starts it in this way."""

from slm.cli import main

main()
