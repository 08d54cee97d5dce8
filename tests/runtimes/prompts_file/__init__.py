"""Tests of the stories of a file of prompts."""
