"""Other runtimes of the same weights, to be measured against; each is optional."""
