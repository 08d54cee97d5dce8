"""`slmx serve`: an HTTP server that writes the stories of many clients together."""
