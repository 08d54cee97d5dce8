"""HTTP/1.1 connections with limits, errors in the shape of OpenAI's interface, the log, and what is counted."""
