"""What is scored: a codec, texts spoken, clones, descriptions, speed."""
