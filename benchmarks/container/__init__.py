"""The container of docs/server/Containerfile, assembled and tried without a container engine."""
