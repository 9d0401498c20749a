"""SFT, expert iteration and GRPO in turn on one run's folder: what the main job and a study have in common."""
