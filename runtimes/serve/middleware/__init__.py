"""The layers around the endpoints: log lines, pages of other origins, host names and keys."""
