"""Programs that run inside a sandbox, by path and not as part of this package: standard library and pytest only."""
