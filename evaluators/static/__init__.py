"""Static probes: they read code and never run it."""
