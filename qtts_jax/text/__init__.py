"""Text before the model: spoken forms, tokens."""
