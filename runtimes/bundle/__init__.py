"""The bundle: which variants exist, the manifest, and the files."""
