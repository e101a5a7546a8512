"""Make the checkpoint that the package carries: random weights until a trained one replaces it.

    python experiments/make_embedded.py

Expected: `qtts_jax/embedded_checkpoint/` of about 1.5 MB; `qtts say "Hello." -o out.wav` then
writes a noise that only shows that everything is in place.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp

from qtts_jax.config import TTSConfig
from qtts_jax.config_12hz import Tokenizer12HzConfig
from qtts_jax.embedded import DIRECTORY
from qtts_jax.functional import cast, initialize
from qtts_jax.io.checkpoint import save_params
from qtts_jax.io.new_directory import new_directory
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.presets import tiny, tiny_tokenizer, tokenizer_12hz, tts_12hz
from qtts_jax.training.export import preprocessor
from qtts_jax.training.text_files import save_text, text_vocabulary

SEED = 0
DESCRIPTION = (
    "the embedded checkpoint, whose weights are random: it makes noise, not speech "
    "(convert a released checkpoint with `python -m convert SRC DST` and give --model DST)"
)
ENTRIES = 64


def write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def tts_config(vocab: dict[str, int], special: dict[str, int]) -> TTSConfig:
    """A CustomVoice checkpoint with books of ENTRIES entries; other codec ids move down."""
    config = tiny(tts_12hz("1b7", "custom_voice"))
    c, shift = config.talker, 2048 - ENTRIES

    def moved(pairs: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        return tuple((name, i - shift) for name, i in pairs)

    assert c.code_predictor is not None
    ids = ("pad_id", "bos_id", "eos_id", "think_id", "nothink_id", "think_bos_id", "think_eos_id")
    talker = replace(
        c,
        vocab_size=c.vocab_size - shift,
        text_vocab_size=len(vocab) + len(special),
        languages=moved(c.languages),
        speakers=moved(c.speakers),
        code_predictor=replace(c.code_predictor, vocab_size=ENTRIES),
        **{name: getattr(c, name) - shift for name in ids},
    )
    return replace(
        config,
        talker=talker,
        im_start_id=special["<|im_start|>"],
        im_end_id=special["<|im_end|>"],
        assistant_id=vocab["assistant"],
        tts_pad_id=special["<tts_pad>"],
        tts_bos_id=special["<tts_text_bos>"],
        tts_eos_id=special["<tts_text_eod>"],
    )


def speech_config() -> Tokenizer12HzConfig:
    """The tiny tokenizer with 16 books of ENTRIES entries."""
    config = tiny_tokenizer(tokenizer_12hz())
    encoder, decoder = (
        replace(half, quantizer=replace(half.quantizer, entries=ENTRIES, books=16))
        for half in (config.encoder, config.decoder)
    )
    return replace(config, encoder=encoder, decoder=decoder)


def main() -> None:
    """Write the checkpoint."""
    vocab, _, special = text_vocabulary()
    config, speech = tts_config(vocab, special), speech_config()
    with new_directory(DIRECTORY, overwrite=True) as out:
        tokenizer = out / "speech_tokenizer"
        tokenizer.mkdir()
        write_json(out / "config.json", config.to_hf())
        write_json(tokenizer / "config.json", speech.to_hf())
        save_text(out)
        write_json(tokenizer / "preprocessor_config.json", preprocessor(speech.input_sample_rate))
        # Random weights hardly ever end by themselves.
        write_json(out / "generation_config.json", {"max_new_tokens": 38})
        (out / "description.txt").write_text(DESCRIPTION + "\n")
        for folder, module, model in (
            (out, TTSModel, config),
            (tokenizer, Tokenizer12Hz, speech),
        ):
            save_params(folder, cast(initialize(module, model, SEED), jnp.bfloat16))
    size = sum(path.stat().st_size for path in DIRECTORY.rglob("*") if path.is_file())
    print(f"wrote {DIRECTORY}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
