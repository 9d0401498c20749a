"""Verdicts and comparisons rendered for people."""
