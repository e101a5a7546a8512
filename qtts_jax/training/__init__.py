"""Training: one trainer for the tokenizer and the talker, losses, data and fine-tuning."""
