"""Crops of recordings and features of a teacher: in step, deterministic, exact after a resume."""

import dataclasses
import json
import struct

import jax
import numpy as np
import pytest

from qtts_jax.data.dataset import Waves
from qtts_jax.data.teacher import Features, teacher_features
from qtts_jax.data.tokenizer_batches import TokenizerBatches
from qtts_jax.data.whisper import WhisperConfig, WhisperEncoder, window_mel
from qtts_jax.data.whisper_files import CONFIG, convert_whisper, load_whisper
from qtts_jax.errors import CheckpointError, DataError
from qtts_jax.functional import abstract, bind
from qtts_jax.io.resample import resample
from tests.support.speech_files import tone

RATE, HOP = 8000, 160
LENGTHS = (3 * HOP + 7, 40 * HOP, 25 * HOP + 1)


def some_waves(rate=RATE):
    """Clips whose samples encode the clip and the place: 10000 * clip + sample // 8."""
    waves = [(10000 * i + np.arange(n) // 8) / 32768 for i, n in enumerate(LENGTHS)]
    return Waves(rate, np.asarray([7, 3, 5]), waves, np.asarray(LENGTHS))


def some_features(waves):
    """Feature t of clip i is (i, t)."""
    counts = [-(-n // HOP) for n in LENGTHS]
    values = [[i, t] for i, n in enumerate(counts) for t in range(n)]
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Features(waves.indices, HOP, starts, np.asarray(values, np.float16))


def batches(seed=0, **options):
    waves = some_waves()
    options = {"threads": 2, "gain_db": 0.0, "teacher": some_features(waves), **options}
    return TokenizerBatches(
        waves, rows=32, frames=4, samples_per_frame=2 * HOP, seed=seed, **options
    )


def test_features_belong_to_the_samples_of_their_crop():
    batch = next(batches())
    assert batch["audio"].shape == (32, 8 * HOP) and batch["audio"].dtype == np.float32
    assert batch["teacher"].shape == (32, 8, 2) and batch["teacher"].dtype == np.float16
    seen = set()
    for audio, features in zip(np.rint(batch["audio"] * 32768), batch["teacher"], strict=True):
        clip = int(features[0, 0])
        seen.add(clip)
        assert (features[:, 0] == clip).all()
        if clip:  # longer than a crop: sample by sample what the clip holds from there on
            start = int(features[0, 1]) * HOP
            np.testing.assert_array_equal(
                audio, 10000 * clip + np.arange(start, start + 8 * HOP) // 8
            )
        else:  # the whole short clip, in silence
            first = np.flatnonzero(audio)[0] - 8
            np.testing.assert_array_equal(
                audio[first : first + LENGTHS[0]], np.arange(LENGTHS[0]) // 8
            )
            assert np.count_nonzero(audio) == LENGTHS[0] - 8
            assert features[first // HOP, 1] == 0
    assert seen == {0, 1, 2}


def test_a_clip_counts_by_its_length():
    source = batches(teacher=None)
    of = np.concatenate([next(source)["audio"].max(axis=1) // (9999 / 32768) for _ in range(40)])
    shares = np.bincount(of.astype(int), minlength=3) / len(of)
    np.testing.assert_allclose(shares, np.asarray(LENGTHS) / sum(LENGTHS), atol=0.04)


def test_gain_changes_the_level_within_its_bounds_and_never_clips():
    waves = Waves(RATE, np.arange(1), [0.9 * np.ones(20 * HOP)], np.asarray([20 * HOP]))
    audio = next(TokenizerBatches(waves, rows=64, frames=4, samples_per_frame=HOP))["audio"]
    decibels = 20 * np.log10(audio[:, 0] / 0.9)
    assert decibels.min() < -4 and decibels.min() >= -6
    assert audio.max() <= 1 and np.ptp(decibels) > 4


@pytest.mark.parametrize("threads", [0, 3])
def test_a_resumed_run_sees_the_batches_that_would_have_followed(threads):
    whole = batches(threads=threads)
    expected = [next(whole) for _ in range(6)]
    first = batches(threads=1)
    for _ in range(2):
        next(first)
    position = json.loads(json.dumps(first.state()))
    again = batches(threads=threads)
    next(again)
    again.restore(position)
    for wanted in expected[2:]:
        jax.tree.map(np.testing.assert_array_equal, next(again), wanted)
    other = next(batches(seed=1))
    assert not np.array_equal(other["audio"], expected[0]["audio"])
    with pytest.raises(DataError, match="seed"):
        batches(seed=1).restore(position)


def test_a_run_does_not_go_on_with_other_recordings():
    position = batches().state()
    batches(gain_db=3.0).restore(position)  # the same recordings at other gains
    fewer, changed = some_waves(), some_waves()
    changed.samples += 1
    fewer = Waves(RATE, fewer.indices[:2], [fewer[0], fewer[1]], fewer.lengths[:2])
    for waves in (fewer, changed):
        other = TokenizerBatches(waves, rows=32, frames=4, samples_per_frame=2 * HOP)
        with pytest.raises(DataError, match="begin another run with its weights"):
            other.restore(position)
    for wrong in ({"kind": "TalkerBatches"}, {"next": "1"}, {"more": 1}):
        with pytest.raises(DataError, match="TokenizerBatches"):
            batches().restore(position | wrong)
    with pytest.raises(DataError, match="TokenizerBatches"):
        batches().restore({})


def test_batches_end_where_they_should():
    assert len(list(batches(stop=3))) == 3


def test_features_of_other_clips_or_another_rate_are_refused():
    waves, features = some_waves(), some_features(some_waves())
    waves.indices = np.asarray([7, 3, 6])
    sizes = {"rows": 2, "frames": 1, "samples_per_frame": HOP}
    with pytest.raises(DataError, match="other clips"):
        TokenizerBatches(waves, teacher=features, **sizes)
    with pytest.raises(DataError, match="no multiple"):
        TokenizerBatches(some_waves(), teacher=features, **sizes | {"samples_per_frame": 100})


WHISPER = WhisperConfig(n_mels=8, width=16, heads=2, layers=2, window=1)


def ctranslate2_model(c=WHISPER, version=6, kind=4):
    """A model file with an encoder of random weights and one array of a decoder."""
    shapes = {"conv1/weight": (c.width, c.n_mels, 3), "conv1/bias": (c.width,),
              "conv2/weight": (c.width, c.width, 3), "conv2/bias": (c.width,),
              "layer_norm/gamma": (c.width,), "layer_norm/beta": (c.width,)}  # fmt: skip
    w, f = c.width, 4 * c.width
    for i in range(c.layers):
        for part, sizes in (
            ("self_attention/layer_norm", None),
            ("self_attention/linear_0", (3 * w, w)),
            ("self_attention/linear_1", (w, w)),
            ("ffn/layer_norm", None),
            ("ffn/linear_0", (f, w)),
            ("ffn/linear_1", (w, f)),
        ):
            name = f"layer_{i}/{part}"
            if sizes is None:
                shapes |= {f"{name}/gamma": (w,), f"{name}/beta": (w,)}
            else:
                shapes |= {f"{name}/weight": sizes, f"{name}/bias": sizes[:1]}
    rng = np.random.default_rng(0)
    arrays = {f"encoder/{n}": rng.normal(0, 0.2, s).astype(np.float16) for n, s in shapes.items()}
    for i in range(c.layers):
        arrays[f"encoder/layer_{i}/self_attention/linear_0/bias"][w : 2 * w] = 0
    arrays["encoder/num_heads"] = np.asarray(c.heads, np.int16)
    arrays["decoder/embeddings/weight"] = np.zeros((4, 4), np.float16)

    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, x in arrays.items():
        number = 2 if x.dtype == np.int16 else kind
        out += text(name) + struct.pack("<B", x.ndim) + struct.pack(f"<{x.ndim}I", *x.shape)
        out += struct.pack("<BI", number, x.nbytes) + x.tobytes()
    return out + struct.pack("<I", 0), arrays


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whisper")
    content, arrays = ctranslate2_model()
    (directory / "model.bin").write_bytes(content)
    convert_whisper(directory, directory / "encoder")
    # The file does not hold the window, which is 30 s in all Whisper models.
    config = directory / "encoder" / CONFIG
    config.write_text(json.dumps(dataclasses.asdict(WHISPER)))
    return directory / "encoder", arrays


def test_the_encoder_computes_what_whisper_does(whisper):
    """Against the formulas in NumPy, float64."""
    directory, arrays = whisper
    config, params = load_whisper(directory)
    assert config == WHISPER
    w = {n.removeprefix("encoder/"): x.astype(np.float64) for n, x in arrays.items()}
    mel = np.random.default_rng(1).normal(size=(20, 8))

    def conv(x, name, stride):
        padded = np.pad(x, ((1, 1), (0, 0)))
        taps = np.stack([padded[t : t + 3] for t in range(0, len(x), stride)])
        return gelu(np.einsum("tki,oik->to", taps, w[f"{name}/weight"]) + w[f"{name}/bias"])

    def gelu(x):
        from scipy.special import erf

        return x * 0.5 * (1 + erf(x / np.sqrt(2)))

    def norm(x, name):
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return y * w[f"{name}/gamma"] + w[f"{name}/beta"]

    def linear(x, name):
        return x @ w[f"{name}/weight"].T + w[f"{name}/bias"]

    x = conv(conv(mel, "conv1", 1), "conv2", 2)
    phase = np.arange(len(x))[:, None] * np.exp(-np.log(1e4) / 7 * np.arange(8))
    x = x + np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    for i in range(2):
        y = linear(
            norm(x, f"layer_{i}/self_attention/layer_norm"), f"layer_{i}/self_attention/linear_0"
        )
        q, k, v = (part.reshape(len(x), 2, 8) for part in np.split(y, 3, axis=1))
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(8)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = np.einsum("hts,shd->thd", scores / scores.sum(-1, keepdims=True), v)
        x = x + linear(y.reshape(len(x), 16), f"layer_{i}/self_attention/linear_1")
        y = gelu(linear(norm(x, f"layer_{i}/ffn/layer_norm"), f"layer_{i}/ffn/linear_0"))
        x = x + linear(y, f"layer_{i}/ffn/linear_1")
    graphdef = abstract(WhisperEncoder, config)[0]
    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda p, m: bind(graphdef, p)(m))(params, mel[None].astype(np.float32))
    np.testing.assert_allclose(found[0], norm(x, "layer_norm"), atol=2e-5)


def test_teacher_features_are_those_of_each_clip_alone(whisper):
    """Windows of one second: the longer clip has two, and each is encoded as it is."""
    directory, _ = whisper
    clips = [tone(150, 0.7, 24000), tone(250, 1.5, 24000)]
    waves = Waves(24000, np.asarray([4, 9]), clips, np.asarray([len(c) for c in clips]))
    found = teacher_features(waves, directory, pool=5, rows=2, standardize=False, progress=False)
    assert found.hop == 2400 and [len(found[i]) for i in range(2)] == [7, 15]
    config, params = load_whisper(directory)
    graphdef = abstract(WhisperEncoder, config)[0]
    encode = jax.jit(lambda p, x: bind(graphdef, p)(window_mel(x, config.n_mels)))
    for i, count in enumerate((7, 15)):
        wave = waves[i].astype(np.float32) / 32768
        wave = resample(wave, 24000, 16000)
        padded = np.zeros((2, 16000), np.float32)
        padded.reshape(-1)[: len(wave)] = wave
        steps = np.asarray(encode(params, padded))
        wanted = steps.reshape(-1, 5, 16).mean(axis=1)[:count]
        np.testing.assert_allclose(found[i], wanted, atol=4e-3)
    even = teacher_features(waves, directory, pool=5, rows=2, progress=False).values
    np.testing.assert_allclose(even.astype(np.float32).mean(axis=0), 0, atol=2e-3)
    np.testing.assert_allclose(even.astype(np.float32).std(axis=0), 1, atol=5e-3)
    with pytest.raises(DataError, match="pooling"):
        teacher_features(waves, directory, pool=3, progress=False)


def test_files_that_hold_no_encoder_are_refused(tmp_path, whisper):
    content, _ = ctranslate2_model()
    for wrong in (content[:2000], ctranslate2_model(version=5)[0], ctranslate2_model(kind=2)[0]):
        (tmp_path / "model.bin").write_bytes(wrong)
        with pytest.raises(CheckpointError, match="Whisper model of CTranslate2"):
            convert_whisper(tmp_path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="convert_whisper"):
        load_whisper(tmp_path)
