"""Hardening: an adversary tries to be paid for patches that fix nothing; hidden tests and levels refuse what got through."""
