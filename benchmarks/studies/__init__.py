"""Commands that each measure one thing for the documents."""
