"""Generation of text from token ids: session, cache, sampling, stories."""
