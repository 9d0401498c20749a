"""The `regrade` command: one module per command."""
