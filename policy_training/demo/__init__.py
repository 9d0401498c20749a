"""The main job from end to end: SFT baseline, reinforcement learning, evaluation, report."""
