"""Training of the talker, its code predictor and its speaker encoder."""
