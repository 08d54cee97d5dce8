"""Commands that measure the figures of the documents. Each command measures one thing."""
