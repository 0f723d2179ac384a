"""The `depth-engine` command, and what the other commands share with it."""
