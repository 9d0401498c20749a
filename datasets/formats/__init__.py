"""Formats of task files and of predictions, of this project and of the field."""
