"""Run the official PyTorch package on a checkpoint and read out all that a comparison needs.

Importing this module needs `qwen-tts`, torch and transformers, so tests reach it through
`pytest.importorskip`. Everything runs on the CPU in float32 and greedily unless a request says
otherwise. From an environment of its own:

    python -m tests.golden_tools.official CHECKPOINT REQUESTS.jsonl OUT.npz

writes ID/codes [T, Q] and ID/wave [N] of every request, each generated alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers  # looks for torchaudio once, which must be before its stand-in is there
from safetensors import safe_open

if importlib.util.find_spec("torchaudio") is None:
    # Only the 25 Hz speaker front end calls torchaudio, yet the package imports it at once.
    for _name in ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi"):
        sys.modules[_name] = types.ModuleType(_name)
    sys.modules["torchaudio.compliance"].kaldi = sys.modules[_name]  # type: ignore[attr-defined]

from qwen_tts import Qwen3TTSModel, Qwen3TTSTokenizer
from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model
from qwen_tts.core.models import (
    Qwen3TTSConfig,
    Qwen3TTSForConditionalGeneration,
    Qwen3TTSProcessor,
)

AutoConfig, AutoProcessor = transformers.AutoConfig, transformers.AutoProcessor

Request = Mapping[str, Any]
"""One line of a `qtts batch` file: id, mode, text, language, speaker, instruct, ref_audio, ..."""

# Of `TTSConfig.to_hf`.
FURTHER_TYPES = "qtts_jax_further_types"
SAMPLING_FIELDS = (
    "max_new_tokens",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
)


@dataclass(frozen=True)
class Output:
    """What the official package made of one request.

    Attributes:
        codes: int64 [T, Q], the end-of-speech frame removed.
        wave: float32 [N], as returned (the reference part of a clone is cut off).
        prompt: float32 [S, D], the talker's input embeddings without padding.
        talker_margin: smallest gap between the best and second score of codebook 0.
        predictor_margin: the same over the other codebooks; inf without frames.
        stopped: whether end of speech was chosen before max_new_tokens.
    """

    codes: np.ndarray
    wave: np.ndarray
    prompt: np.ndarray
    talker_margin: float
    predictor_margin: float
    stopped: bool


def model_tensor_shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return name -> shape of every tensor of a talker checkpoint with this config.json."""
    module = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**config))
    return {name: list(t.shape) for name, t in module.state_dict().items()}


def tokenizer_tensor_shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return name -> shape of every tensor of a 12 Hz tokenizer with this config.json."""
    module = Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**config))
    return {name: list(t.shape) for name, t in module.state_dict().items()}


def load_model(checkpoint: str | Path) -> Qwen3TTSModel:
    """Load a checkpoint directory in float32.

    Raises:
        ValueError: if tensors are missing or unknown, which the package would only warn about.
    """
    model = Qwen3TTSModel.from_pretrained(str(checkpoint), dtype=torch.float32)
    _require_same_tensors(model.model, Path(checkpoint))
    _require_same_tensors(model.model.speech_tokenizer.model, Path(checkpoint, "speech_tokenizer"))
    return model


def load_tokenizer(directory: str | Path) -> Qwen3TTSTokenizer:
    """Load a 12 Hz tokenizer directory in float32; raises as `load_model` does."""
    tokenizer = Qwen3TTSTokenizer.from_pretrained(str(directory), dtype=torch.float32)
    _require_same_tensors(tokenizer.model, Path(directory))
    return tokenizer


def run_official(
    checkpoint: str | Path, requests: Sequence[Request], audio_root: str | Path = "."
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Generate every request on its own; return ({id: codes [T, Q]}, {id: wave [N]}).

    Relative `ref_audio` paths start at `audio_root`.
    """
    model = load_model(checkpoint)
    outputs = {r["id"]: run_together(model, [r], audio_root)[0] for r in requests}
    codes = {name: output.codes for name, output in outputs.items()}
    return codes, {name: output.wave for name, output in outputs.items()}


def run_together(
    model: Qwen3TTSModel,
    requests: Sequence[Request],
    audio_root: str | Path = ".",
    joint_references: bool = False,
) -> list[Output]:
    """Generate requests in one official call; they must share mode, layout and sampling fields.

    With `joint_references` the reference recordings are encoded as one padded batch, as the
    package does with a list of them; otherwise each is encoded alone.
    """
    first = requests[0]
    shared = {k: first[k] for k in SAMPLING_FIELDS if k in first}
    if any({k: r[k] for k in SAMPLING_FIELDS if k in r} != shared for r in requests):
        raise ValueError("requests of one call must have the same sampling fields")
    greedy = first.get("greedy", True)
    arguments: dict[str, Any] = {
        "text": [r["text"] for r in requests],
        "language": [r.get("language") or "Auto" for r in requests],
        "do_sample": not greedy,
        "subtalker_dosample": not greedy,
        **shared,
    }
    if "stream_text" in first:
        arguments["non_streaming_mode"] = not first["stream_text"]
    if first["mode"] == "custom_voice":
        arguments["speaker"] = [r.get("speaker") for r in requests]
        arguments["instruct"] = [r.get("instruct") for r in requests]
    elif first["mode"] == "voice_design":
        arguments["instruct"] = [r.get("instruct") for r in requests]
    else:
        arguments["voice_clone_prompt"] = _clone_prompts(
            model, requests, Path(audio_root), joint_references
        )
    with _recorded(model) as record:
        waves, _ = getattr(model, f"generate_{first['mode']}")(**arguments)
    return [_output(record, row, waves[row]) for row in range(len(requests))]


def encode_with_gap(
    tokenizer: Qwen3TTSTokenizer, waves: Sequence[np.ndarray], sample_rate: int
) -> tuple[list[np.ndarray], float]:
    """Encode one padded batch; return int64 [T, Q] codes and the smallest codeword gap.

    The gap is the distance of the second-nearest codeword minus that of the nearest, over the
    books in use: below about 1e-4 another order of summation may choose the other one.
    """
    gaps: list[float] = []
    quantizer = tokenizer.model.encoder.quantizer
    books = [
        *quantizer.semantic_residual_vector_quantizer.layers,
        *quantizer.acoustic_residual_vector_quantizer.layers,
    ][: tokenizer.model.encoder_valid_num_quantizers]
    handles = [_watch_distances(layer.codebook, gaps) for layer in books]
    try:
        codes = tokenizer.encode(list(waves), sr=sample_rate).audio_codes
    finally:
        for restore in handles:
            restore()
    return [c.numpy() for c in codes], min(gaps)


def large_vocabulary_ids(checkpoint: str | Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids that a released checkpoint, loaded from a local directory, would give.

    With more than 100,000 entries transformers 4.57.3 takes the vocabulary for Mistral's and
    replaces the split pattern of Qwen2. Unused entries are added to a copy of this checkpoint's
    text files to make that happen; the ids of its own tokens stay as they are.
    """
    AutoConfig.register("qwen3_tts", Qwen3TTSConfig, exist_ok=True)
    AutoProcessor.register(Qwen3TTSConfig, Qwen3TTSProcessor, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for path in Path(checkpoint).iterdir():
            if path.suffix in (".json", ".txt"):
                shutil.copy(path, scratch)
        vocab = json.loads(Path(scratch, "vocab.json").read_text())
        special = json.loads(Path(scratch, "tokenizer_config.json").read_text())
        for number, token in special["added_tokens_decoder"].items():
            vocab[token["content"]] = int(number)
        free = max(vocab.values()) + 1
        vocab.update({f"<unused {i}>": i for i in range(free, free + 100_001)})
        Path(scratch, "vocab.json").write_text(json.dumps(vocab))
        processor = AutoProcessor.from_pretrained(scratch, fix_mistral_regex=True)
        return [processor(text=text)["input_ids"][0] for text in texts]


def _require_same_tensors(module: torch.nn.Module, directory: Path) -> None:
    with safe_open(directory / "model.safetensors", "pt") as file:
        stored = set(file.keys())
    wanted = set(module.state_dict())
    config = json.loads((directory / "config.json").read_text())
    if config.get("tts_model_type") != "base" and "base" in config.get(FURTHER_TYPES, ()):
        # It clones as well; the official class of its first type leaves the encoder unread.
        stored = {name for name in stored if not name.startswith("speaker_encoder.")}
    if stored != wanted:
        raise ValueError(
            f"{directory}: missing {sorted(wanted - stored)}, unknown {sorted(stored - wanted)}"
        )


def _clone_prompts(
    model: Qwen3TTSModel, requests: Sequence[Request], root: Path, jointly: bool
) -> list[Any]:
    audio = [str(root / r["ref_audio"]) for r in requests]
    texts = [r.get("ref_text") for r in requests]
    alone = [bool(r.get("x_vector_only")) for r in requests]
    if jointly:
        return model.create_voice_clone_prompt(audio, texts, alone)
    parts = zip(audio, texts, alone, strict=True)
    return [model.create_voice_clone_prompt(a, t, x)[0] for a, t, x in parts]


@dataclass
class _Record:
    prompts: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    mask: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    sequences: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    stop_id: int = -1
    scores: Sequence[torch.Tensor] = ()
    predictor_scores: list[Sequence[torch.Tensor]] = field(default_factory=list)
    codes: Sequence[torch.Tensor] = ()


@contextmanager
def _recorded(model: Qwen3TTSModel) -> Iterator[_Record]:
    """Watch one generate call: prompt embeddings, processed scores and trimmed codes."""
    record = _Record()
    whole, talker = model.model, model.model.talker
    predictor = talker.code_predictor
    run_whole, run_talker, run_predictor = whole.generate, talker.generate, predictor.generate

    def watch_whole(**kwargs: Any) -> Any:
        result = run_whole(**kwargs)
        record.codes = result[0]
        return result

    def watch_talker(**kwargs: Any) -> Any:
        record.prompts, record.mask = kwargs["inputs_embeds"], kwargs["attention_mask"]
        result = run_talker(**kwargs, output_scores=True)
        record.scores, record.sequences = result.scores, result.sequences
        record.stop_id = kwargs["eos_token_id"]
        return result

    def watch_predictor(**kwargs: Any) -> Any:
        result = run_predictor(**kwargs, output_scores=True)
        record.predictor_scores.append(result.scores)
        return result

    whole.generate, talker.generate, predictor.generate = watch_whole, watch_talker, watch_predictor
    try:
        yield record
    finally:
        # The instance attributes hide the methods of the class; deleting them restores those.
        for module in (whole, talker, predictor):
            del module.generate


def _margin(scores: Sequence[torch.Tensor], row: int) -> float:
    gaps = [float((top := s[row].topk(2).values)[0] - top[1]) for s in scores]
    return min(gaps, default=float("inf"))


def _output(record: _Record, row: int, wave: np.ndarray) -> Output:
    codes = record.codes[row].cpu().numpy()
    frames = len(codes)
    kept = record.mask[row].bool()
    return Output(
        codes=codes,
        wave=wave,
        prompt=record.prompts[row][kept].cpu().numpy(),
        talker_margin=_margin(record.scores[: frames + 1], row),
        predictor_margin=min(
            (_margin(s, row) for s in record.predictor_scores[:frames]), default=float("inf")
        ),
        stopped=record.stop_id in record.sequences[row].tolist(),
    )


def _watch_distances(codebook: Any, gaps: list[float]) -> Callable[[], None]:
    choose = codebook.quantize

    def watched(hidden: torch.Tensor) -> torch.Tensor:
        distances = torch.cdist(hidden[None].float(), codebook.embed[None].float())[0]
        best = distances.topk(2, largest=False).values
        gaps.append(float((best[:, 1] - best[:, 0]).min()))
        return choose(hidden)

    codebook.quantize = watched
    return lambda: delattr(codebook, "quantize")


def main() -> None:
    """Generate a request file; see the head of this module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("requests", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    requests = [json.loads(line) for line in args.requests.read_text().splitlines() if line]
    codes, waves = run_official(args.checkpoint, requests, args.requests.parent)
    arrays = {f"{name}/codes": c for name, c in codes.items()}
    arrays.update({f"{name}/wave": w for name, w in waves.items()})
    np.savez_compressed(args.out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
