"""Other runtimes that read a bundle: one module for each, and the comparison of their tokens with ours."""
