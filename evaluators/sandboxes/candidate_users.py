"""User ids of candidates: they own no files, can signal no other process, and share no limit or key of the kernel."""

from __future__ import annotations

import secrets

LOWEST, BLOCKS, PER_SANDBOX = 200_000, 1 << 18, 4096


def new_candidate_users() -> range:
    """The user ids of a new sandbox, at random: other programs of the machine take theirs without asking."""
    first = LOWEST + secrets.randbelow(BLOCKS) * PER_SANDBOX
    return range(first, first + PER_SANDBOX)
