"""Repositories as material for tasks: their files, their declared requirements, and their commits. Runs no code of
theirs."""
