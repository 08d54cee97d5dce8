"""From token ids to text: session, cache, sampling, stories."""
