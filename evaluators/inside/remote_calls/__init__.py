"""Calls between two processes: the tests in one, the candidate's code in the other."""
