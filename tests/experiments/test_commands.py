"""The benchmarks run: each one at its smallest, in a process of its own."""

import argparse
import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from qtts_jax import QwenTTS, SpeechTokenizer
from qtts_jax.configs.presets import tiny, tiny_tokenizer, tokenizer_12hz, tts_12hz
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data import prepare
from qtts_jax.embedded import DIRECTORY
from qtts_jax.errors import ConfigError
from qtts_jax.functional import initialize
from qtts_jax.io.checkpoint import read_config, save_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.log import RunLog
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from tests.support.helpers import ROOT
from tests.support.speech_files import corpus


def run(module, *arguments, fails=False):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done


@pytest.mark.by_hand
def test_cpu_benchmark(tmp_path):
    out = tmp_path / "cpu.json"
    options = ["--size", "tiny", "--measures", "decode_26_frames_s", "--repeats", "2"]
    run("bench.cpu", *options, "--out", out)
    result = json.loads(out.read_text())
    row = result["measures"]["decode_26_frames_s"]
    assert len(row["turns"]) == 2 and row["ours"] > 0
    assert result["cores"] == 2 and result["device"]


@pytest.mark.by_hand
def test_codec_benchmark_and_its_table(tmp_path):
    out, table = tmp_path / "codec.json", tmp_path / "cost.md"
    small = ["--size", "tiny", "--batches", "1", "--seconds", "0.6", "--repeats", "1"]
    run("bench.codec", "--families", "12 Hz", *small, "--out", out)
    part = json.loads(out.read_text())["families"]["12 Hz"]["float32"]["batch"]["1"]
    assert set(part["step"]) == {"1", "4"}
    assert part["first_packet_codes"] == 1
    figure = part["decode"]["0.6"]
    assert figure["ms_per_audio_s"] == pytest.approx(1e3 * figure["s"] / 0.6)
    run("bench.codec", "--table", out, "--into", table)
    text = table.read_text()
    assert f"| 12 Hz | float32 | 1 | decode | 0.6 | {figure['s']:.3g} |" in text
    assert "Table 2" in text


def test_table_of_both_rates_beside_the_official_decoder():
    render = importlib.import_module("experiments.bench.codec_table").render

    def part(ms, wait):
        return {
            "step": {"8": {"ms": ms, "ms_per_code": ms / 8, "ms_per_audio_s": ms / 0.32}},
            "first_packet_ms": 2 * ms,
            "first_packet_codes": wait,
            "decode": {"10": {"s": 0.5, "ms_per_audio_s": 50.0}},
        }

    families = {
        "12 Hz": {"float32": {"codes_per_s": 12.5, "batch": {"1": part(2.0, 1)}}},
        "25 Hz": {"float32": {"codes_per_s": 25.0, "batch": {"1": part(40.0, 16)}}},
    }
    official = {
        "25 Hz": {
            "batch": {
                "1": {
                    "block": {"codes": 8, "ms": 200.0},
                    "decode": {"10": {"s": 2.0, "ms_per_audio_s": 200.0}},
                }
            }
        }
    }
    result = {"device": "a chip", "versions": {"jax": "1"}, "size": "released"}
    text = render({"x.json": result | {"families": families, "official": official}})
    assert "| 12 Hz | float32 | 1 | 8 | 2 | 6.25 | 4 | 1 | 80 |" in text
    assert "| 25 Hz | float32 | 1 | 8 | 40 | 125 | 80 | 16 | 640 |" in text
    assert "| 25 Hz | float32 | 1 | 8 codes | 200 | 40 | 0.2 |" in text
    assert "| 25 Hz | float32 | 1 | decode 10 s | 2000 | 500 | 0.25 |" in text
    assert "97" in text and "138" in text  # the paper


@pytest.fixture
def train_talker():
    return importlib.import_module("experiments.train.talker")


def test_voices_made_of_others_are_no_presets(train_talker):
    clips = [("few", {}), *3 * [("ann", {})], *4 * [("bob", {"derived": False})]]
    clips += 9 * [("ann higher", {"derived": True})]
    records = [SimpleNamespace(speaker=speaker, extra=extra) for speaker, extra in clips]
    assert train_talker.preset_speakers(records, 2) == ["bob", "ann"]


def test_a_checkpoint_without_a_speaker_encoder_gets_a_new_one_to_train_on(train_talker, tmp_path):
    preset = tiny(tts_12hz("0b6", "custom_voice"))
    (tmp_path / "config.json").write_text(json.dumps(preset.to_hf()))
    save_params(tmp_path, initialize(TTSModel, preset, seed=0))
    config = train_talker.start_config(tmp_path)
    assert (config.types, config.speaker_encoder.sample_rate) == (("base",), 24000)
    task = TalkerTask(TalkerTaskConfig(config), train_talker.start_params(tmp_path))
    groups, _ = jax.eval_shape(task.init, jax.random.key(0))
    assert set(groups) == {"talker", "code_predictor", "speaker_encoder"}


def test_new_speaker_encoder_fits_a_talker_of_any_width(train_talker, monkeypatch):
    released = tts_12hz("0b6", "custom_voice")
    monkeypatch.setattr(train_talker, "read_config", lambda model: released.to_hf())
    config = train_talker.start_config(DIRECTORY)
    assert config.speaker_encoder.embedding_dim == released.talker.transformer.width != 256


@pytest.mark.by_hand
def test_a_second_process_compiles_nothing(tmp_path):
    out = tmp_path / "start.json"
    run("bench.cold_start", "--size", "tiny", "--repeats", "3", "--quick", "--out", out)
    result = json.loads(out.read_text())
    assert [run["missed"] for run in result["runs"]] == [[], [], []]
    assert all(run["programs"]["cache_hits"] > 0 for run in result["runs"])


@pytest.mark.by_hand
def test_training_benchmark_of_several_variants(tmp_path):
    out = tmp_path / "train.json"
    options = ["--size", "tiny", "--positions", 64, "--steps", 1, "--dtype", "float32"]
    variants = ["predictor-chunk=8", "remat=nothing"]
    run("bench.train", *options, "--variants", *variants, "--limit", 500, "--out", out)
    first, second = json.loads(out.read_text())["runs"]
    assert first["settings"]["predictor_chunk"] == 8 and first["settings"]["dtype"] == "float32"
    assert first["step_s"] > 0 and first["share_of_peak"] is None
    assert "invalid choice: 'nothing'" in second["error"]
    run("bench.train", *options, "--variants", "rows=2", "--limit", 0, "--out", out)
    assert "not run" in json.loads(out.read_text())["runs"][0]["error"]


@pytest.mark.by_hand
@pytest.mark.parametrize("method", ["gspo", "dpo"])
def test_post_training_benchmark(tmp_path, method):
    out = tmp_path / "post_train.json"
    options = ["--size", "tiny", "--frames", 8, "--steps", 1, "--dtype", "float32"]
    run("bench.post_train", *options, "--rows", 32, "--method", method, "--out", out)
    result = json.loads(out.read_text())
    assert result["generation_s"] > 0 and result["update_s"] > 0
    assert result["trained_parameters_m"] > 1 and result["settings"]["method"] == method
    failed = run("bench.post_train", *options, "--rows", 40, fails=True)
    assert "rows must be a multiple of 16" in failed.stderr


def test_learning_curves_of_two_runs(tmp_path):
    runs = [tmp_path / name for name in ("a", "b")]
    for start, directory in enumerate(runs):
        with RunLog(directory, tensorboard=False) as log:
            for step in range(120):
                held_out = {"held_out/loss": 0.1 * step} if step % 50 == 0 else {}
                log.scalars(step, {"loss": start + 1 / (step + 1)} | held_out)
    picture = tmp_path / "curves.png"
    done = run("train.curves", *runs, "--out", picture)
    assert done.stdout.strip() == f"{picture}: 2 panels, 2 runs"
    done = run("train.curves", runs[0], "--only", "held_out", "--out", picture)
    assert "1 panels, 1 runs" in done.stdout
    pixels = imread(picture)
    assert pixels.min() < 0.5 and pixels.ndim == 3


def test_learning_curves_without_data_are_one_sentence(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 2.0}\n')
    for directory, message in ((tmp_path / "none", "no readable"), (tmp_path, "no scalar")):
        done = run("train.curves", directory, fails=True)
        assert message in done.stderr and len(done.stderr.splitlines()) == 1


def small_tokenizer():
    """A tiny tokenizer with small codebooks, which a few clips can fill."""
    config = tiny_tokenizer(tokenizer_12hz())
    encoder, decoder = (
        replace(half, quantizer=replace(half.quantizer, entries=64, books=16))
        for half in (config.encoder, config.decoder)
    )
    return replace(config, encoder=encoder, decoder=decoder)


def test_a_decoder_for_new_codes_begins_with_the_layers_of_another(monkeypatch):
    train_tokenizer = importlib.import_module("experiments.train.tokenizer")
    config = small_tokenizer()
    trees = [
        {"encoder": {"x": i}, "decoder": {"quantizer": {"books": i}, "stages": i, "pre_conv": i}}
        for i in range(2)
    ]
    monkeypatch.setattr(train_tokenizer, "read_tokenizer", lambda model: (config, trees[1]))
    made = train_tokenizer.with_decoder(config, trees[0], Path("other"))
    decoder = {"quantizer": {"books": 0}, "stages": 1, "pre_conv": 1}
    assert made == {"encoder": {"x": 0}, "decoder": decoder}
    wider = replace(config, decoder=replace(config.decoder, decoder_width=128))
    with pytest.raises(ConfigError, match="the decoder of other has other sizes"):
        train_tokenizer.with_decoder(wider, trees[0], Path("other"))


def test_weights_of_losses_are_named_on_the_command_line():
    train_tokenizer = importlib.import_module("experiments.train.tokenizer")
    assert train_tokenizer.weight("mel=2.5") == ("mel", 2.5)
    for wrong, message in (
        ("loud=2", "names no loss"),
        ("mel:2", "names no"),
        ("mel=x", "not like"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            train_tokenizer.weight(wrong)


def test_the_default_speaker_comes_first_and_the_others_keep_their_order():
    with_default_speaker = importlib.import_module("experiments.nano.export").with_default_speaker
    talker = TTSConfig.from_hf(read_config(DIRECTORY)).talker
    names = [name for name, _ in talker.speakers]
    changed = with_default_speaker(talker, names[3]).speakers
    assert [name for name, _ in changed] == [names[3], *names[:3], *names[4:]]
    assert dict(changed) == dict(talker.speakers)
    with pytest.raises(ConfigError, match="no speaker 'nobody'; choose among"):
        with_default_speaker(talker, "nobody")


def test_the_mean_with_an_earlier_model_weighs_as_asked_and_keeps_types():
    mean_params = importlib.import_module("experiments.nano.export").mean_params
    last = {"a": jnp.array([1.0, 8.0], jnp.bfloat16), "b": [jnp.array(2.0)]}
    earlier = {"a": jnp.array([3.0, 4.0], jnp.bfloat16), "b": [jnp.array(-2.0)]}
    mean = mean_params(last, earlier, 0.25)
    assert mean["a"].dtype == jnp.bfloat16 and mean["b"][0].dtype == jnp.float32
    np.testing.assert_array_equal(mean["a"], jnp.array([1.5, 7.0], jnp.bfloat16))
    assert float(mean["b"][0]) == 1.0
    chex.assert_trees_all_equal(mean_params(last, earlier, 0.0), last)
    with pytest.raises(ConfigError, match="--earlier-share is 1.5; it must be between 0 and 1"):
        mean_params(last, earlier, 1.5)


@pytest.mark.slow
def test_training_commands_make_a_checkpoint_that_speaks(tmp_path):
    (tmp_path / "clips").mkdir()
    manifest = corpus(tmp_path / "clips", rate=24000, split="train")
    prepare(manifest, tmp_path / "speech", progress=False)
    config = tmp_path / "tokenizer.json"
    config.write_text(json.dumps(small_tokenizer().to_hf()))
    common = ["--data", tmp_path / "speech", "--no-tensorboard"]
    common += ["--log-every", 1, "--save-every", 2, "--steps-per-call", 2]
    tokenizer = ["train.tokenizer", *common, "--rows", 2, "--frames", 2]
    codes = [*tokenizer, "--stage", "codes", "--config", config, "--out", tmp_path / "codes"]
    assert "no samples to log: " in run(*codes, "--steps", 2).stdout
    run(*codes, "--steps", 3)  # goes on where the first session ended
    lines = (tmp_path / "codes" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    decoder = [*tokenizer, "--stage", "decoder", "--model", tmp_path / "codes" / "model"]
    run(*decoder, "--no-discriminator", "--steps", 1, "--out", tmp_path / "codec")

    model = tmp_path / "codec" / "model"
    clip = (np.sin(np.arange(24000) / 20).astype(np.float32), 24000)
    before, after = (
        SpeechTokenizer.from_pretrained(each).encode(clip)[0]
        for each in (tmp_path / "codes" / "model", model)
    )
    np.testing.assert_array_equal(before, after)
    talker = ["train.talker", *common, "--out", tmp_path / "talker", "--tokenizer", model]
    talker += ["--positions", 128, "--batch-positions", 256]
    assert "no held-out loss: " in run(*talker, "--steps", 1, "--speaker-clips", 1).stdout
    talker[talker.index(tmp_path / "talker")] = tmp_path / "again"
    run(*talker, "--steps", 1, "--speaker-clips", 1, "--start", tmp_path / "talker" / "weights")
    tts = QwenTTS.from_pretrained(tmp_path / "again" / "model")
    assert tts.supported_languages == ["auto", "english"]
    voice = tts.create_voice_clone_prompt(clip, x_vector_only_mode=True)
    (wave,), rate = tts.generate_voice_clone("one", voice_clone_prompt=voice, max_new_tokens=3)
    assert rate == 24000 and np.isfinite(wave).all()
    export = ["nano.export", tmp_path / "again" / "model", "--out", tmp_path / "nano"]
    export += ["--earlier", tmp_path / "talker" / "model", "--earlier-share", 0.25]
    run(*export, "--data", tmp_path / "speech", "--runs", tmp_path / "again")
    refused = run(*talker, "--model", tmp_path / "codec", fails=True)
    expected = f"{tmp_path / 'codec'} is not a checkpoint folder: it has no config.json."
    assert refused.stderr.splitlines()[-1] == f"experiments.train.talker: {expected}"
    refused = run(*codes, "--data", tmp_path / "clips", fails=True)
    assert refused.stderr.splitlines()[-1].startswith("experiments.train.tokenizer: ")
    assert "Traceback" not in refused.stderr
    assert {"custom_voice", "voice_clone", "voice_design"} == set(
        QwenTTS.from_pretrained(tmp_path / "nano").modes
    )
    assert "0.75 of the last one's and 0.25" in (tmp_path / "nano" / "MODEL_CARD.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [[], ["--lora", 2]], ids=["whole", "lora"])
def test_a_checkpoint_is_taught_a_new_speaker(converted, tmp_path, adapters):
    (tmp_path / "clips").mkdir()
    manifest = corpus(tmp_path / "clips", rate=24000, split="train")
    prepare(manifest, tmp_path / "speech", progress=False)
    command = ["train.new_speaker", "--data", tmp_path / "speech", "--model", converted("base")]
    command += ["--out", tmp_path / "run", "--steps", 2, "--log-every", 1, "--no-tensorboard"]
    command += ["--positions", 64, "--batch-positions", 512, *adapters]
    refused = run(*command, "--speaker", "ada", fails=True)
    assert refused.stderr.endswith("its speakers are speaker0, speaker1, speaker2.\n")
    run(*command, "--speaker", "speaker1")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    tts = QwenTTS.from_pretrained(tmp_path / "run" / "model")
    assert tts.modes == ("custom_voice",) and "speaker1" in tts.supported_speakers
    (wave,), rate = tts.generate_custom_voice("one", "speaker1", max_new_tokens=3)
    assert rate == 24000 and np.isfinite(wave).all()
