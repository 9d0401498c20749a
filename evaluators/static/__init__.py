"""Probes that read code and never run it."""
