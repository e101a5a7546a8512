"""Run by test_sharded_inference.py in a process with eight virtual devices.

    python inference_on_eight_devices.py 12hz|25hz|flops|int8|int4 DATAxMODEL ...

Generates, decodes, encodes and streams on one device and on meshes, and prints what differs.
"""

import json
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.presets import (
    tiny,
    tiny_tokenizer,
    tiny_tokenizer_25hz,
    tokenizer_12hz,
    tokenizer_25hz,
    tts_12hz,
    tts_25hz,
)
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tokenizer_12hz import Quirks12Hz
from qtts_jax.functional import initialize, logical_axes
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session, generate_codes
from qtts_jax.layers.quantized_weights import quantizer
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import make_mesh, rows, shardings, whole
from qtts_jax.speech_tokenizer import load as _families  # noqa: F401
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.speech_tokenizer.programs_12hz import programs_12hz
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.synthesis import stream, synthesize

FRAMES, TEXTS, ROWS = 5, 64, 5


def model(family):
    """Configurations of a talker with eight key/value heads and of its speech tokenizer."""
    released = tts_12hz("0b6", "custom_voice") if family == "12hz" else tts_25hz("0b6", "base")
    config = tiny(released)
    talker = config.talker

    def wider(c):
        return replace(c, layers=1, heads=8, kv_heads=8)

    predictor = talker.code_predictor
    if predictor is not None:
        predictor = replace(predictor, transformer=wider(predictor.transformer))
    talker = replace(
        talker,
        transformer=wider(talker.transformer),
        code_predictor=predictor,
        text_vocab_size=TEXTS,
    )
    config = replace(config, talker=talker, speaker_encoder=None, tts_pad_id=7)
    if family == "12hz":
        return config, tiny_tokenizer(tokenizer_12hz())
    return config, tiny_tokenizer_25hz(tokenizer_25hz())


def requests(config, speech):
    """Prompts of unlike lengths, greedy and sampled, some with trailing text."""
    rng, made, voice = np.random.default_rng(0), [], None
    if config.talker.codebooks == 1:
        dit = speech.decoder.dit
        voice = ReferenceVoice(
            rng.standard_normal(dit.xvector_width).astype(np.float32),
            rng.standard_normal((40, dit.n_mels)).astype(np.float32),
        )
    for i in range(ROWS):
        n = 9 + 3 * i
        prompt = Prompt(
            text=rng.integers(0, TEXTS, n).astype(np.int32),
            codec=rng.integers(0, 2048, n).astype(np.int32),
            residual=np.full((n, config.talker.codebooks - 1), -1, np.int32),
            speaker=np.zeros(n, bool),
            embedding=None,
            trailing=rng.integers(0, TEXTS, i).astype(np.int32),
        )
        greedy = {"do_sample": False, "subtalker_dosample": False} if i % 2 else {}
        frames = FRAMES - i % 2
        sampling = SamplingParams(max_new_tokens=frames + 1, **greedy)
        made.append(Request(prompt, sampling, i, decoder_voice=voice))
    return made


def outputs(family, params, codec, mesh, waves):
    """Everything that users get: whole speech, a stream, codes of recordings."""
    config, speech = model(family)
    if mesh is not None:
        axes = logical_axes(TTSModel, config)
        params = jax.device_put(params, shardings(mesh, axes, params))
        codec = jax.device_put(codec, whole(mesh))
    tokenizer = SpeechTokenizer.from_params(speech, codec)
    if family == "25hz":
        tokenizer.set_flow(steps=2)
    asked = requests(config, speech)
    spoken = synthesize(config, params, tokenizer, asked)
    chunks = list(stream(config, params, tokenizer, lambda: (asked[0], None), [2]))
    rate = tokenizer.input_sample_rate
    recordings = tokenizer.encode([(w, rate) for w in waves])
    half = len(waves[0]) // 2
    streamed = np.concatenate(list(tokenizer.stream_encode([waves[0][:half], waves[0][half:]])))
    codes = [s.codes for s in spoken]
    return codes + recordings + [streamed], [s.wave for s in spoken] + [np.concatenate(chunks)]


def compare(family, meshes):
    """Whether codes are equal on meshes, and the largest differences of audio and its largest."""
    config, speech = model(family)
    params = jax.device_get(initialize(TTSModel, config, 0))
    kind = next(k for k in SpeechTokenizer.families.values() if isinstance(speech, k.config_class))
    codec = jax.device_get(initialize(kind.model, speech, 1))
    rng = np.random.default_rng(1)
    waves = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (9000, 5000, 9100)]
    wanted = outputs(family, jax.device_put(params), jax.device_put(codec), None, waves)
    report = {"frames": [len(c) for c in wanted[0]]}
    for name in meshes:
        found = outputs(family, params, codec, make_mesh(*map(int, name.split("x"))), waves)
        pairs = [list(zip(a, b, strict=True)) for a, b in zip(wanted, found, strict=True)]
        report[name] = {
            "codes": all(np.array_equal(a, b) for a, b in pairs[0]),
            "shapes": all(a.shape == b.shape for a, b in pairs[1]),
            "audio": max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs[1]),
        }
    return report


def stored(kind, meshes):
    """Codes of weights in fewer bytes on meshes against one device, and how those are split."""
    config, speech = model("12hz")
    params, report = initialize(TTSModel, config, 0), {}
    store = quantizer(TTSModel, config, kind)

    def codes(placed):
        small = jax.tree_util.tree_map_with_path(
            lambda path, x: store(tuple(str(k.key) for k in path), x), placed
        )
        session = Session(config, small, requests(config, speech))
        kernel = small["talker"]["transformer"]["layers"][0]["ffn"]["gate_up"]["kernel"]
        return generate_codes(session), kernel

    wanted, _ = codes(params)
    for name in meshes:
        mesh = make_mesh(*map(int, name.split("x")))
        split = shardings(mesh, logical_axes(TTSModel, config), params)
        found, kernel = codes(jax.device_put(params, split))
        report[name] = {
            "codes": all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True)),
            "values": str(kernel.values.sharding.spec),
            "scale": str(kernel.scale.sharding.spec),
        }
    return report


def flops(meshes):
    """Work of a device as the compiled programs have it, relative to that of a single device."""
    config, speech = model("12hz")
    params = jax.device_get(initialize(TTSModel, config, 0))
    kind = SpeechTokenizer.families["qwen3_tts_tokenizer_12hz"]
    codec = jax.device_get(initialize(kind.model, speech, 1))
    work = {}
    for name in ("one", *meshes):
        mesh = None if name == "one" else make_mesh(*map(int, name.split("x")))
        placed, decoder = jax.device_put(params), jax.device_put(codec["decoder"])
        if mesh is not None:
            axes = logical_axes(TTSModel, config)
            placed = jax.device_put(params, shardings(mesh, axes, params))
            decoder = jax.device_put(codec["decoder"], whole(mesh))
        session = Session(config, placed, requests(config, speech) + requests(config, speech)[:3])
        arguments = placed, session.conditions, session.state
        run = session._programs.run.lower(*arguments, methods=session.methods, frames=4)
        codec_programs = programs_12hz(speech, Quirks12Hz(), mesh)
        codes = jnp.zeros((8, 8, 16), jnp.int32)
        if mesh is not None:
            codes = jax.device_put(codes, rows(mesh))
        decode = codec_programs.decode.lower(
            decoder, codes, codec_programs.decoder_state(decoder, 8)
        )
        compiled = {"frames": run.compile(), "decode": decode.compile()}
        work[name] = {k: c.cost_analysis()["flops"] for k, c in compiled.items()}
        work[name]["collectives"] = sum(
            compiled["frames"].as_text().count(f" {kind}(")
            for kind in ("all-reduce", "all-gather", "all-to-all", "collective-permute")
        )
        work[name]["cache"] = str(session.state.talker.layers[0].keys.sharding)
    return {
        name: found | {k: found[k] / work["one"][k] for k in ("frames", "decode")}
        for name, found in work.items()
        if name != "one"
    }


def main():
    assert jax.device_count() == 8
    what, *meshes = sys.argv[1:]
    functions = {"flops": flops} | {kind: partial(stored, kind) for kind in ("int8", "int4")}
    report = functions[what](meshes) if what in functions else compare(what, meshes)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
