"""The suite `judge`: a language model behind an OpenAI-compatible endpoint scores endings, and people did elsewhere."""
