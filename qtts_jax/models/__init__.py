"""The models: talker, code predictor, speaker encoder and the speech tokenizers."""
