"""One start, trained in several variants (reward, algorithm, settings), each judged on the same held-out tasks."""
