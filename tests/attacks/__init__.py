"""Small attacks, one for each way in which a file could make slmx run code, read elsewhere, or take all time or memory.

Attacks on zip archives are in tests/runtimes/bundle/test_archive.py, those by links and names in test_store.py and
test_manifest.py beside it, and those on the files of PyTorch in tests/export/checks/test_torch_archive.py.
"""
