"""The cascade of executions in training: an attempt runs no further than its pay needs."""
