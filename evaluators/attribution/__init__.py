"""Which hunks of a patch a reward comes from, and the smallest part of a patch that passes."""
