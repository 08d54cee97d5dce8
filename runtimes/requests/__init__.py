"""From a JSON object to stories: the fields of a request, their ranges, and the JSON schema of both."""
