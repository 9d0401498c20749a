"""Scores many jobs: planning, the worker pool, gathering of missing evidence, Ray."""
