"""One patch on one task in one worker: workspaces, environments, test runs, builds, test selection."""
