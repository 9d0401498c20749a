"""The `regrade` command: one module a verb."""
