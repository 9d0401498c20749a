"""Files that Regrade writes: the evidence store, run folders, rows, journals."""
