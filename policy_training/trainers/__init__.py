"""SFT, expert iteration, GRPO, RLOO and PPO on top of TRL."""
