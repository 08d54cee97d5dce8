"""The suite `judge`: a language model behind an OpenAI-compatible endpoint scores endings.

Published scores that people gave stand beside them.
"""
