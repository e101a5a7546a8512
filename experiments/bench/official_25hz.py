"""Library of `experiments.bench.codec`: the official 25 Hz decoder with random weights.

Only the decoder's own modules of the package are imported: its encoder needs libraries (sox,
onnxruntime, torchaudio) that decoding does not. PyTorch's device is the GPU if it has one. A call
includes the official noise, 30,000 frames a row drawn on the CPU whatever the length.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments import command
from qtts_jax.errors import MissingExtraError

PACKAGE = "qwen_tts.core.tokenizer_25hz"
MODELING = f"{PACKAGE}.modeling_qwen3_tts_tokenizer_v1"
CONFIGURATION = f"{PACKAGE}.configuration_qwen3_tts_tokenizer_v1"
# Modules of the encoder and the names that the decoder's file imports from them.
UNUSED = {
    f"{PACKAGE}.vq.whisper_encoder": ("get_mel_audio", "get_T_after_cnn"),
    f"{PACKAGE}.vq.speech_vq": ("WhisperEncoderVQ", "XVectorExtractor"),
}
REFERENCE_FRAMES = 300


def load() -> tuple[Any, Any]:
    """The official modules of the decoder and of its configuration."""
    spec = importlib.util.find_spec("qwen_tts")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "--official needs the official package, which is not installed: `pip install qwen-tts` "
            "installs it."
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    # Packages without their __init__, which would import everything.
    for name in ("qwen_tts", "qwen_tts.core", PACKAGE, f"{PACKAGE}.vq"):
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    for name, attributes in UNUSED.items():
        stand_in = ModuleType(name)
        for attribute in attributes:
            setattr(stand_in, attribute, None)
        sys.modules[name] = stand_in
    return importlib.import_module(MODELING), importlib.import_module(CONFIGURATION)


def measure_official(args: argparse.Namespace, family: Any) -> dict[str, Any]:
    """Seconds of whole decodes and of one block, by batch, as `bench_codec.measure` has them."""
    import torch
    import transformers

    from qtts_jax.configs import presets

    config = getattr(presets, family.preset)()
    if args.size == "tiny":
        config = getattr(presets, family.tiny)(config)
    modeling, configuration = load()
    sections = config.to_hf()["decoder_config"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    decoder = modeling.Qwen3TTSTokenizerV1Decoder(
        configuration.Qwen3TTSTokenizerV1DecoderConfig(
            dit_config=sections["dit_config"], bigvgan_config=sections["bigvgan_config"]
        )
    )
    decoder = decoder.eval().to(device)
    dit = config.decoder.dit
    rate, per_code = config.output_sample_rate, config.decoder.samples_per_code

    def call(rows: int, count: int) -> Callable[[], Any]:
        codes = torch.randint(0, 64, (rows, count), device=device)
        xvector = torch.randn(rows, dit.xvector_width, device=device)
        reference = torch.randn(rows, REFERENCE_FRAMES, dit.n_mels, device=device)
        return lambda: decoder(codes, xvector, reference).cpu()

    def median(run: Callable[[], Any]) -> float:
        run()
        spent = []
        for _ in range(args.repeats):
            started = time.perf_counter()
            run()
            spent.append(time.perf_counter() - started)
        return statistics.median(spent)

    batch: dict[str, Any] = {}
    for rows in args.batches:
        block = -(-dit.block // dit.repeats)
        row: dict[str, Any] = {
            "block": {"codes": block, "ms": 1e3 * median(call(rows, block))},
            "decode": {},
        }
        for seconds in () if args.steps_only else args.seconds:
            if rows * seconds > args.most_audio:
                continue
            spent = median(call(rows, round(seconds * rate / per_code)))
            cost = 1e3 * spent / (rows * seconds)
            row["decode"][f"{seconds:g}"] = {"s": spent, "ms_per_audio_s": cost}
        batch[str(rows)] = row
        print(f"official batch {rows}: {row}", file=sys.stderr, flush=True)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "dtype": "float32",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "batch": batch,
    }


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.codec"))
