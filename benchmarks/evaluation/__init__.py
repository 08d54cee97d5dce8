"""`slmx evaluate`: what a model is worth, and what a variant costs. A bundle needs onnxruntime and numpy only."""

SUITES = ("loss", "pairs", "stories", "novelty", "judge")
OF_ENDINGS = ("stories", "novelty", "judge")  # the suites for which the models write
