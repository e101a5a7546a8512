"""A recording as a client uploads it."""

import io

import numpy as np
import soundfile


def recording(seconds):
    """Noise as the bytes of a WAV file."""
    noise = 0.1 * np.random.default_rng(1).standard_normal(int(24000 * seconds))
    content = io.BytesIO()
    soundfile.write(content, noise, 24000, format="WAV", subtype="PCM_16")
    return content.getvalue()
