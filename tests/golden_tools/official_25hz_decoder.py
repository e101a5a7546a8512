"""Run the decoder of the official 25 Hz tokenizer.

    python -m tests.golden_tools.official_25hz_decoder OUT

writes OUT/tok25_decode_extra.npz, the cases of `cases_25hz_decoder.py`. It needs the official
package (see `official.py`) and runs on the CPU in float32. Per case NAME, from one call with the
noise of the case in place of the drawn one:

    NAME/mel     [B, M, T * repeats], what the vocoder is given
    NAME/wave    [B, samples], rows not cut
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from qwen_tts.core import Qwen3TTSTokenizerV1Config
from qwen_tts.core.tokenizer_25hz.modeling_qwen3_tts_tokenizer_v1 import (
    Qwen3TTSTokenizerV1Decoder,
)

from tests.golden_tools import (
    detweights,
    official,  # noqa: F401 (its stand-in for torchaudio must be there first)
)
from tests.golden_tools.cases_25hz_decoder import CASES, PREFIX, Case


def build(case: Case) -> Qwen3TTSTokenizerV1Decoder:
    """The official decoder with the weights of (seed, tensor name, shape)."""
    section = Qwen3TTSTokenizerV1Config(decoder_config=case.config).decoder_config
    section._attn_implementation = "sdpa"
    model = Qwen3TTSTokenizerV1Decoder(section).eval()
    state = model.state_dict()
    for name, value in state.items():
        drawn = detweights.tensor(case.seed, PREFIX + name, value.shape)
        if drawn is not None:
            state[name] = torch.from_numpy(drawn)
    model.load_state_dict(state)
    return model


@torch.no_grad()
def outputs(case: Case) -> dict[str, np.ndarray]:
    """All arrays of a case."""
    model = build(case)
    inputs = {name: torch.from_numpy(array) for name, array in case.inputs().items()}
    # The official code draws 30000 frames and cuts them to the length that it needs.
    with mock.patch.object(torch, "randn", return_value=inputs["noise"]):
        mel = model.dit.sample(
            inputs["xvectors"],
            inputs["references"],
            inputs["codes"],
            num_steps=case.steps,
            guidance_scale=case.guidance,
            sway_coefficient=case.sway,
        )
    return {"mel": mel.numpy(), "wave": model.bigvgan(mel).numpy()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    stored = {f"{c.name}/{k}": v for c in CASES for k, v in outputs(c).items()}
    np.savez_compressed(Path(sys.argv[1], "tok25_decode_extra.npz"), **stored)
    for name, array in stored.items():
        print(name, array.shape, np.abs(array).max())
