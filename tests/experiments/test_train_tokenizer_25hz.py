"""A 25 Hz tokenizer trained by its command, stage after stage, works like any other."""

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments.train import tokenizer_25hz
from experiments.train.recipe_25hz import PRESETS, STAGES, TRAINERS, Recipe25Hz
from experiments.train.stages_25hz import StageOptions, prepare_stage
from qtts_jax import SpeechTokenizer
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.data import load_waves
from qtts_jax.data.prepare import prepare
from qtts_jax.data.whisper import WhisperConfig, WhisperEncoder
from qtts_jax.data.whisper_files import CONFIG
from qtts_jax.functional import abstract
from qtts_jax.io.checkpoint import flatten_params, load_params
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.speech_tokenizer.voice_files import read_voices
from qtts_jax.training.log import read_metrics
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer.config import DiscriminatorConfig, TokenizerTraining
from qtts_jax.training.tokenizer_25hz.config import check_trainable_25hz
from qtts_jax.training.tokenizer_25hz.whisper_start import SIZES
from tests.support import tiny_onnx
from tests.support.checkpoint_25hz import MATRIX
from tests.support.small_tokenizer_25hz import HEADS, toy_config
from tests.support.speech_files import RATE, corpus

STEPS = 3


def recipe():
    """Some ten thousand parameters that decode 8 kHz; x-vectors as wide as the stand-in's."""
    config = toy_config()
    decoder = config.decoder
    vocoder = replace(decoder.vocoder, upsample_rates=(5, 16), upsample_kernels=(11, 32))
    decoder = replace(decoder, vocoder=vocoder, dit=replace(decoder.dit, xvector_width=20))
    training = TokenizerTraining(
        stage="decoder",
        mel_scales=((64, 10),),
        discriminator=DiscriminatorConfig((3,), (4, 6), (64,), 3),
        discriminator_start=1,
        generator_start=2,
    )
    return Recipe25Hz(
        replace(
            config, decoder=decoder, output_sample_rate=RATE, decode_upsample_rate=320
        ),
        HEADS,
        training,
        dict.fromkeys(STAGES, 2),
        seconds=1.0,
        codes=8,
        reference_frames=24,
        vocoder_frames=12,
    )  # fmt: skip


def test_presets_can_be_trained_and_have_optimizers():
    for name, make in PRESETS.items():
        check_trainable_25hz(make().tokenizer)
        assert set(make().rows) == set(STAGES) == set(TRAINERS), name
        config = make().tokenizer
        assert Tokenizer25HzConfig.from_hf(config.to_hf()) == config


def test_the_preset_of_whisper_base_has_its_sizes():
    config = PRESETS["whisper-base"]().tokenizer.encoder
    assert {n: getattr(config, n) for n in SIZES} == {n: getattr(WhisperConfig(), n) for n in SIZES}


def write_whisper(folder, sizes):
    """Files of `convert_whisper` with random weights; the weights."""
    rng, shapes = np.random.default_rng(0), flatten_params(abstract(WhisperEncoder, sizes)[1])
    drawn = {name: rng.normal(0, 0.2, x.shape).astype(np.float16) for name, x in shapes.items()}
    folder.mkdir()
    save_file({n.replace("/", "."): x for n, x in drawn.items()}, folder / "part-0.safetensors")
    (folder / CONFIG).write_text(json.dumps(asdict(sizes)))
    return drawn


def test_the_encoder_stage_begins_as_whisper(tmp_path):
    c = recipe().tokenizer.encoder
    sizes = WhisperConfig(c.n_mels, c.width, c.heads, c.layers)
    drawn = write_whisper(tmp_path / "whisper", sizes)
    dataset = prepare(corpus(tmp_path), tmp_path / "speech", sample_rate=RATE, progress=False)
    clips = load_waves(dataset, dataset.select("train"), progress=False)
    options = StageOptions("encoder", "float32", threads=0, whisper=tmp_path / "whisper")
    prepared = prepare_stage(options, recipe(), recipe().tokenizer, None, clips, dataset)
    prepared.batches.close()
    start = flatten_params(prepared.task.start)
    for name, value in drawn.items():
        np.testing.assert_array_equal(start[name], value.astype(np.float32), err_msg=name)


@pytest.mark.parametrize(
    "others", [("mel",), ("encoder", "--model", "m"), ("encoder", "--start", "s")]
)
def test_whisper_is_refused_where_there_is_an_encoder(others, monkeypatch, capsys):
    arguments = ["--data", "d", "--out", "o", "--whisper", "w"]
    monkeypatch.setattr(sys, "argv", ["tokenizer_25hz", *others, *arguments])
    with pytest.raises(SystemExit):
        tokenizer_25hz.main()
    assert "--whisper needs the stage encoder" in capsys.readouterr().err


def changed_parts(before, after):
    """Parts of a tokenizer in which anything differs."""
    old, new = flatten_params(before), flatten_params(after)
    assert old.keys() == new.keys()
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    return {"/".join(n.split("/")[: 1 if n.startswith("encoder") else 2]) for n in changed}


@pytest.mark.slow
def test_all_stages_make_a_tokenizer_that_encodes_decodes_and_streams(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", recipe)
    for stage, trainer in TRAINERS.items():
        rules = dict.fromkeys(trainer.optimizers, OptimizerConfig(1e-2))
        quick = replace(trainer, optimizers=rules, average_decay=None, progress=False)
        monkeypatch.setitem(TRAINERS, stage, quick)
    prepare(corpus(tmp_path), tmp_path / "speech", sample_rate=RATE, progress=False)
    (tmp_path / "speaker").mkdir()
    (tmp_path / "speaker" / "campplus.onnx").write_bytes(tiny_onnx.stand_in(MATRIX))

    def run(stage, *options, steps=STEPS):
        arguments = [
            stage, "--data", tmp_path / "speech", "--out", tmp_path / stage, "--preset", "tiny",
            "--steps", steps, "--log-every", 1, "--threads", 0, "--no-tensorboard", *options,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["tokenizer_25hz", *map(str, arguments)])
        tokenizer_25hz.main()
        folder = tmp_path / stage / "model"
        config = Tokenizer25HzConfig.from_hf(json.loads((folder / "config.json").read_text()))
        assert config == recipe().tokenizer
        assert len(read_metrics(tmp_path / stage)) == steps
        return load_params(folder, abstract(Tokenizer25Hz, config)[1])

    run("encoder", steps=2)
    first = run("encoder")  # the same command goes on
    second = run("mel", "--start", tmp_path / "encoder" / "weights")
    assert changed_parts(first, second) == {"encoder"}
    with pytest.raises(SystemExit):
        run("flow")
    model = tmp_path / "mel" / "model"
    third = run("flow", "--model", model, "--xvectors", tmp_path / "speaker")
    assert changed_parts(second, third) == {"decoder/flow"}
    fourth = run("vocoder", "--model", tmp_path / "flow" / "model")
    assert changed_parts(third, fourth) == {"decoder/vocoder"}

    folder = tmp_path / "vocoder" / "model"
    assert set(read_voices(folder)) == {"default", "speaker0", "speaker1", "speaker2"}
    tokenizer = SpeechTokenizer.from_pretrained(folder)
    tokenizer.set_flow(steps=3)
    wave = np.sin(np.arange(RATE) / 5).astype(np.float32) * 0.3
    (codes,) = tokenizer.encode((wave, RATE))
    assert codes.shape == (25,) and codes.max() < 16
    (whole,), rate = tokenizer.decode(codes, seed=1)
    assert rate == RATE and whole.shape == (RATE,) and np.abs(whole).max() > 0
    parts = [codes[i : i + 4] for i in range(0, 25, 4)]
    streamed = np.concatenate(list(tokenizer.stream_decode(parts, seed=1)))
    assert np.abs(streamed - whole).max() < 1e-5
    # The checkpoint's own speaker network conditions the decoder on any recording.
    other = tokenizer.reference_voice((wave, RATE))
    (cloned,), _ = tokenizer.decode(codes, other, seed=1)
    assert np.abs(cloned - whole).max() > 1e-5
