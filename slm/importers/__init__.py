"""Models and tokenizers of other tools, as slmx checkpoints and tokenizers."""
