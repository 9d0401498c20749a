"""Single-line bugs planted in pinned packages: kinds, recipes that rebuild them, splits."""
