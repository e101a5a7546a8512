"""The public speech tokenizers: audio to codes and codes to audio, whole or in a stream."""
