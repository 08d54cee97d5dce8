"""Corpora: sources, cleaning, data sets of token shards."""
