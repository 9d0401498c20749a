"""Contract tests: each adapter against the real package of its trainer, in an environment of its own.

`make contracts` runs them all; `python -m contracts NAME ...` (with tests/ on the path) some of them.
"""
