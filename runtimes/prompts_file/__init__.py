"""Stories for the prompts of a file: `slmx generate --prompts`."""
