"""Tasks from repositories, and whether a task is sound: baselines, mutants, validation, checkup."""
