"""Run the official talker with one codebook and keep its codes.

    python -m tests.golden_tools.official_25hz_talker OUT

writes OUT/talker_25hz.npz: NAME/codes{row} [T] of the cases in `cases_25hz_talker.py`, greedy, and
NAME/margin, the smallest gap between a chosen code and the next. It needs the official package (see
`official.py`) and runs on the CPU in float32.

The official code cannot run such a talker as it is: it asks its code predictor for
`num_code_groups - 1` = 0 more codes, which transformers refuses. Here the predictor gives none;
everything else is the official code.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from qwen_tts.core.models import (
    Qwen3TTSConfig,
    Qwen3TTSForConditionalGeneration,
    Qwen3TTSProcessor,
)
from safetensors.torch import load_file
from transformers import AutoConfig, AutoProcessor

from tests.golden_tools import (
    detweights,
    official,  # noqa: F401 (its stand-in for torchaudio must be there first)
)
from tests.golden_tools.cases_25hz_talker import CASES, Case
from tests.support.checkpoint_25hz import write_released

TURN = "<|im_start|>assistant\n{}<|im_end|>\n"


def load(folder: Path) -> Qwen3TTSForConditionalGeneration:
    """The model in float32, its code predictor giving nothing."""
    config = Qwen3TTSConfig(**json.loads((folder / "config.json").read_text()))
    model = Qwen3TTSForConditionalGeneration(config).float().eval()
    missing, unknown = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    if unknown or any(not name.startswith("talker.code_predictor.") for name in missing):
        raise ValueError(f"missing {missing}, unknown {unknown}")

    def nothing(inputs_embeds: torch.Tensor, **_: object) -> types.SimpleNamespace:
        rows = inputs_embeds.shape[0]
        return types.SimpleNamespace(sequences=torch.zeros((rows, 0), dtype=torch.long))

    model.talker.code_predictor.generate = nothing
    return model


@torch.no_grad()
def run(case: Case, folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a case."""
    write_released(case.kind, folder, detweights, case.overrides)
    AutoConfig.register("qwen3_tts", Qwen3TTSConfig, exist_ok=True)
    AutoProcessor.register(Qwen3TTSConfig, Qwen3TTSProcessor, exist_ok=True)
    processor = AutoProcessor.from_pretrained(folder, fix_mistral_regex=True)
    model, rows = load(folder), len(case.texts)

    def ids(text: str) -> torch.Tensor:
        return torch.tensor([processor(text=text)["input_ids"][0]])

    clone = None
    if case.kind == "base":
        vector = torch.from_numpy(case.embedding(model.talker.config.hidden_size))
        in_context = case.reference > 0
        codes = torch.from_numpy(case.codes().astype(np.int64)) if in_context else None
        clone = {
            "ref_code": [codes] * rows,
            "ref_spk_embedding": [vector] * rows,
            "x_vector_only_mode": [not in_context] * rows,
            "icl_mode": [in_context] * rows,
        }
    scores: list[torch.Tensor] = []
    generate = model.talker.generate

    def watched(**kwargs: object) -> object:
        result = generate(**kwargs, output_scores=True)
        scores.extend(result.scores)
        return result

    model.talker.generate = watched
    made, _ = model.generate(
        input_ids=[ids(TURN.format(t) + "<|im_start|>assistant\n") for t in case.texts],
        ref_ids=[ids(TURN.format(case.reference_text))] * rows if case.reference else None,
        voice_clone_prompt=clone,
        languages=[case.language] * rows,
        speakers=[case.speaker] * rows,
        non_streaming_mode=not case.stream_text,
        max_new_tokens=case.max_new_tokens,
        do_sample=False,
        subtalker_dosample=False,
    )
    arrays = {f"codes{i}": c[:, 0].numpy().astype(np.int32) for i, c in enumerate(made)}
    gaps = []
    for i, codes in enumerate(made):
        for s in scores[: len(codes) + 1]:
            best = s[i].topk(2).values
            gaps.append(float(best[0] - best[1]))
    return arrays | {"margin": np.float32(min(gaps))}


if __name__ == "__main__":
    torch.set_num_threads(1)
    stored = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(CASES):
            arrays = run(case, Path(scratch, str(number)))
            print(case.name, {k: v.tolist() for k, v in arrays.items()})
            stored |= {f"{case.name}/{k}": v for k, v in arrays.items()}
    np.savez_compressed(Path(sys.argv[1], "talker_25hz.npz"), **stored)
