"""Run the encoder of the official 25 Hz tokenizer and read out what a comparison needs.

    python -m tests.golden_tools.official_25hz_encoder OUT

writes OUT/tok25_encode_extra.npz, the cases of `cases_25hz_encoder.py`. It needs the official
package (see `official.py`) and runs on the CPU in float32. Per case NAME:

    NAME/codes{i}     [T] of wave i, all waves in one call
    NAME/single{i}    [T] of wave i alone
    NAME/embedded     [sum T, D], every 3rd channel, what the codebook quantizes, in one call
    NAME/output       [sum T', W], the continuous output behind the codebook, with its two ends
    NAME/gap          smallest difference between the nearest and the second-nearest entry
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qwen_tts.core import Qwen3TTSTokenizerV1Config
from qwen_tts.core.tokenizer_25hz.modeling_qwen3_tts_tokenizer_v1 import (
    Qwen3TTSTokenizerV1Encoder,
)
from qwen_tts.core.tokenizer_25hz.vq.whisper_encoder import get_T_after_cnn

from tests.golden_tools import (
    detweights,
    official,  # noqa: F401 (its stand-in for torchaudio must be there first)
)
from tests.golden_tools.cases_25hz_encoder import CASES, PREFIX, Case

CHANNEL_STRIDE = 3


def build(config: dict[str, Any], seed: int) -> Qwen3TTSTokenizerV1Encoder:
    """The official encoder with the weights of (seed, tensor name, shape)."""
    section = Qwen3TTSTokenizerV1Config(encoder_config=config).encoder_config
    model = Qwen3TTSTokenizerV1Encoder(section).eval()
    state = model.state_dict()
    for name, value in state.items():
        drawn = detweights.tensor(seed, PREFIX + name, value.shape)
        if drawn is not None:
            state[name] = torch.from_numpy(drawn)
    model.load_state_dict(state)
    return model


@torch.no_grad()
def run(model: Qwen3TTSTokenizerV1Encoder, waves: Sequence[np.ndarray]) -> dict[str, Any]:
    """One official call: codes per wave, embedded vectors, continuous output, smallest gap."""
    seen: list[torch.Tensor] = []
    quantizer = model.tokenizer.audio_quantizer
    encode = quantizer.encode

    def watched(x: torch.Tensor, n_q: int | None = None) -> torch.Tensor:
        seen.append(x)
        return encode(x, n_q)

    quantizer.encode = watched
    try:
        mels = model.speech2mel([torch.from_numpy(w) for w in waves])
        codes, lengths = model.mel2code(mels)
        steps = [get_T_after_cnn(mel.size(-1)) for mel in mels]
        frames, pairs = [mel.size(-1) for mel in mels], [s // 2 + 2 for s in steps]
        output, _ = model.tokenizer(mels, frames, steps, pairs)
    finally:
        quantizer.encode = encode
    book = quantizer.rvqs[0]
    projected = book.layers[0].project_in(seen[0])
    nearest = torch.cdist(projected, book.embed).topk(2, largest=False).values
    return {
        "codes": [c[:n].numpy().astype(np.int32) for c, n in zip(codes, lengths, strict=True)],
        "embedded": seen[0][0].numpy(),
        "output": output.numpy(),
        "gap": float((nearest[..., 1] - nearest[..., 0]).min()),
    }


def outputs(case: Case) -> dict[str, np.ndarray]:
    """All arrays of a case."""
    model = build(case.config, case.seed)
    waves = case.waves()
    together = run(model, waves)
    arrays = {f"codes{i}": c for i, c in enumerate(together["codes"])}
    for i, wave in enumerate(waves):
        arrays[f"single{i}"] = run(model, [wave])["codes"][0]
    arrays["embedded"] = together["embedded"][:, ::CHANNEL_STRIDE]
    arrays["output"] = together["output"]
    arrays["gap"] = np.float32(together["gap"])
    return arrays


if __name__ == "__main__":
    torch.set_num_threads(1)
    stored = {f"{c.name}/{k}": v for c in CASES for k, v in outputs(c).items()}
    np.savez_compressed(Path(sys.argv[1], "tok25_encode_extra.npz"), **stored)
    for case in CASES:
        print(case.name, "smallest gap", stored[f"{case.name}/gap"])
