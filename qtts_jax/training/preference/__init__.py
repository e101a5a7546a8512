"""Training on preferences (DPO) and rewards (GSPO, GRPO) after the supervised training."""
