"""The thread of each model: it queues the stories of all clients and writes them together."""
