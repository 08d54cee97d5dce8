"""The addresses of the server: OpenAI's interface, its description, figures, health, and the page."""
