"""From a request to codes: prompts, sampling, one frame, many frames."""
