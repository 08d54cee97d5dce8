"""What slmx promises about damaged files, crashes, load and machines, each promise with the check that tries it.

`python -m tests.reliability` runs every check, `--quick` the short form of each. `--write` keeps the results in
docs/reliability.json and docs/reliability.md.
"""
