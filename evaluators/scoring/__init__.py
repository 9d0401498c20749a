"""Many jobs at once: planning, the worker pool, gathering of missing evidence, Ray."""
