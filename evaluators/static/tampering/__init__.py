"""Static signs that a patch tampers with the evaluation."""
