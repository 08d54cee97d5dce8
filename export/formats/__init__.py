"""One module for each kind of model file."""
