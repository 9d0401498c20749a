"""The error that stands for a mistake of the user, as opposed to a defect of the program."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave is wrong or missing.

    The message says what is wrong, where, with the offending value, and what to do next.
    The command-line program prints it as one line and exits with code 2.
    """
