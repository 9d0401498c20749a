"""Executed attempts of a policy, and their training rewards."""
