"""Policies, which propose patches: local models, endpoints, commands, recorded predictions, scripted controls."""
