"""The files of a bundle that hold the model, one module for each kind."""
