"""Hardening: an adversary is paid for patches that fix nothing, until hidden tests or a level refuse them."""
