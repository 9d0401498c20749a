"""Attempts of a policy, executed, and what training pays for them."""
