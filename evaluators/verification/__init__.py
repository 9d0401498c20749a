"""Verification of verdicts: the runs of each assurance level besides the tests."""
