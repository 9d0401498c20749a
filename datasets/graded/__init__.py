"""Graded results of other programs, read without executing anything: one module a format, one record for all."""
