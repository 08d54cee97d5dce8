"""What README.md and docs/ take from the program and from measurements, put there by `cog -r`."""
