"""Policies that propose patches, and the training of them on rewards from executed tests."""
