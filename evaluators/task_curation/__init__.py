"""Creates tasks from repositories and checks them: baselines, mutants, validation, check-ups."""
