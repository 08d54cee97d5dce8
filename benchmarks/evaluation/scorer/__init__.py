"""An outside model reads the endings, and its perplexity is shown beside their variety."""
