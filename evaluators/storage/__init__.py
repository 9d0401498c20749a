"""What Regrade writes to disk: the evidence store, run folders, rows, journals."""
