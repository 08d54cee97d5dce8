"""From a request for stories to its answer, in one piece or in events."""
