"""What slmx promises about damaged files, crashes, load and machines, each promise with the check that tries it.

`python -m tests.reliability` runs every check and writes docs/reliability.md; `--quick` runs the short form of each.
"""
