"""Commands that measure one question each, for the documents."""
