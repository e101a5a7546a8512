"""`QwenTTS`: streams, seeds, batches, compilations and errors."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from qtts_jax import QwenTTS
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import QTTSError, RequestError, TextError
from qtts_jax.generation import session as sessions
from qtts_jax.generation.programs import Programs
from qtts_jax.sharding import make_mesh

TEXTS = [
    "Hello there, this is a test.",
    "Short one.",
    "你好，世界！",
    "The thing in there is another thing, and so on it goes.",
    "One, two.",
]
SAMPLED = {"max_new_tokens": 12, "language": "English"}


@pytest.fixture(scope="module")
def model(tts):
    return tts("custom_voice", exact_reference=False)


@pytest.fixture(scope="module")
def base(tts):
    return tts("base", exact_reference=False)


@pytest.fixture(scope="module")
def recording(detweights):
    return detweights.wave(7, "recording", 9000, 24000), 24000


def parts_of(text, sizes):
    """Cut a text into parts of the given sizes, cycled."""
    sizes, start = itertools.cycle(sizes), 0
    while start < len(text):
        n = next(sizes)
        yield text[start : start + n]
        start += n


def speak(model, text, **options):
    return model.generate_custom_voice(text, "ryan", **(SAMPLED | options))[0]


def codes_of(model, texts, seed, **options):
    requests = [
        model.prepare_custom_voice(t, "ryan", "english", seed=seed, **options) for t in texts
    ]
    return [s.codes for s in model.synthesize(requests)]


def test_same_seed_gives_the_same_codes_alone_and_in_a_batch(model):
    options = {"max_new_tokens": 12}
    together = codes_of(model, TEXTS, 11, **options)
    for i in (0, 2, 4):
        np.testing.assert_array_equal(codes_of(model, [TEXTS[i]], 11, **options)[0], together[i])
    other = codes_of(model, [TEXTS[0]], 12, **options)[0]
    assert other.shape != together[0].shape or (other != together[0]).any()


CHUNKS = [(1,), (5, 1, 3), (64,)]
MORE_CHUNKS = [(2,), (3,), (7,), (1, 1, 2, 4)]


@pytest.mark.parametrize(
    "chunks", [*CHUNKS, *(pytest.param(c, marks=pytest.mark.slow) for c in MORE_CHUNKS)]
)
def test_streamed_audio_equals_whole_audio(model, chunks):
    whole = speak(model, TEXTS[0], seed=3)[0]
    stream = model.stream_custom_voice(TEXTS[0], "ryan", seed=3, chunk_frames=chunks, **SAMPLED)
    streamed = list(stream)
    assert all(chunk.dtype == np.float32 and len(chunk) for chunk in streamed)
    assert all(chunk.flags.writeable and chunk.base is None for chunk in streamed)
    assert len(streamed[0]) == min(chunks[0] * 1920, len(whole))
    np.testing.assert_allclose(np.concatenate(streamed), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1,), (3, 1, 7), (100,)])
@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[2]])
def test_text_arriving_in_parts_gives_the_streaming_text_layout(model, text, sizes):
    whole = speak(model, text, seed=5, non_streaming_mode=False)[0]
    arriving = model.stream_custom_voice(parts_of(text, sizes), "ryan", seed=5, **SAMPLED)
    np.testing.assert_allclose(np.concatenate(list(arriving)), whole, rtol=0, atol=1e-5)


def test_voice_starts_before_the_text_has_ended(model):
    given = []

    def slowly():
        for part in parts_of(TEXTS[3], (4,)):
            given.append(part)
            yield part

    stream = model.stream_custom_voice(slowly(), "ryan", seed=1, **SAMPLED)
    next(stream)
    assert len("".join(given)) < len(TEXTS[3]) / 2


def test_arriving_text_that_is_empty_is_refused(model):
    with pytest.raises(TextError, match="empty"):
        list(model.stream_custom_voice(iter(["", "  "]), "ryan"))
    with pytest.raises(TextError, match="string or an iterator"):
        model.stream_custom_voice(5, "ryan")


@pytest.mark.parametrize("before", [[], ["Hello there, ", "this is "]])
def test_a_part_that_is_no_text_is_refused(model, before):
    arriving = iter([*before, None, "a test."])
    with pytest.raises(TextError, match="must arrive as str, got NoneType"):
        list(model.stream_custom_voice(arriving, "ryan", seed=1, max_new_tokens=40))


@pytest.mark.parametrize("in_context", [False, True])
@pytest.mark.parametrize("arriving", [False, True])
def test_clone_streams_equal_whole_clones(base, recording, in_context, arriving):
    voice = base.create_voice_clone_prompt(
        recording, "A reference." if in_context else None, not in_context
    )
    options = {"voice_clone_prompt": voice, "seed": 2, **SAMPLED}
    whole = base.generate_voice_clone(TEXTS[0], **options)[0][0]
    text = parts_of(TEXTS[0], (2,)) if arriving else TEXTS[0]
    streamed = np.concatenate(list(base.stream_voice_clone(text, **options)))
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-5)


def test_a_model_of_several_types_does_what_each_does(base, recording):
    def as_types(first, *others):
        config = dataclasses.replace(base.config, model_type=first, further_types=others)
        assert TTSConfig.from_hf(config.to_hf()) == config
        parts = base.params, base.speech_tokenizer, base.text_tokenizer, base.defaults
        return QwenTTS(config, *parts)

    both, options = as_types("base", "voice_design"), {"seed": 2, **SAMPLED}
    assert (both.mode, both.modes) == ("voice_clone", ("voice_clone", "voice_design"))
    voice = both.create_voice_clone_prompt(recording, None, True)
    for given, wanted in (
        (
            m.generate_voice_clone(TEXTS[1], voice_clone_prompt=voice, **options)
            for m in (both, base)
        ),
        (
            m.generate_voice_design(TEXTS[1], "A calm voice.", **options)
            for m in (both, as_types("voice_design", "base"))
        ),
    ):
        np.testing.assert_array_equal(given[0][0], wanted[0][0])
    with pytest.raises(RequestError, match="does voice_clone, voice_design, not custom_voice"):
        both.generate_custom_voice(TEXTS[1], "ryan")


def test_voice_design_streams_equal_whole(tts):
    model = tts("voice_design", exact_reference=False)
    options = {"instruct": "A calm voice.", "seed": 4, **SAMPLED}
    whole = model.generate_voice_design(TEXTS[1], **options)[0][0]
    streamed = np.concatenate(list(model.stream_voice_design(TEXTS[1], **options)))
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-5)


def test_another_text_in_the_same_bucket_compiles_nothing(model):
    def run(text):
        speak(model, text, seed=1, max_new_tokens=9)
        list(model.stream_custom_voice(text, "ryan", seed=1, max_new_tokens=9))

    run("Hello there, this is a test.")
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        run("Another thing, of another length!")
        assert compiled == []
        jax.jit(lambda x: x * 3 + 1)(np.arange(7))
        assert compiled  # the listener does see compilations
    finally:
        jax.monitoring.clear_event_listeners()


def test_caches_grow_without_changing_the_codes(model, monkeypatch):

    options = {"seed": 0, "top_k": 5, "max_new_tokens": 100}
    request = model.prepare_custom_voice(TEXTS[0], "ryan", "english", **options)
    wanted = model.synthesize([request])[0].codes
    assert len(wanted) == 99
    monkeypatch.setattr(sessions, "MIN_CAPACITY", 32)
    monkeypatch.setattr(sessions, "FRAMES_PER_CALL", 8)
    session = sessions.Session(model.config, model.params, [request])
    stream = model.speech_tokenizer.open_stream(session, [request])
    capacities, got = [], []
    while not session.exhausted:
        got.append(np.asarray(stream.advance(20)[0])[0])
        capacities.append(session.capacity)
    got = np.concatenate([g[g[:, 0] >= 0] for g in got])
    np.testing.assert_array_equal(got, wanted)
    assert len(set(capacities)) > 1


def with_context(model, positions):
    """The same model with another greatest number of positions."""
    talker = model.config.talker
    transformer = dataclasses.replace(talker.transformer, max_positions=positions)
    talker = dataclasses.replace(talker, transformer=transformer)
    config = dataclasses.replace(model.config, talker=talker)
    parts = model.params, model.speech_tokenizer, model.text_tokenizer, model.defaults
    return QwenTTS(config, *parts)


@pytest.mark.parametrize("rows", [1, 2])
def test_caches_end_with_the_context_whatever_the_prompts(model, monkeypatch, rows):
    """Every size is a program, so prompts of other lengths must not bring sizes of their own."""

    monkeypatch.setattr(sessions, "MIN_CAPACITY", 32)
    short = with_context(model, 150)
    sizes = []
    for text in (TEXTS[1], TEXTS[0], TEXTS[3]):
        requests = [short.prepare_custom_voice(t, "ryan", seed=0) for t in (text, TEXTS[1])[:rows]]
        session = sessions.Session(short.config, short.params, requests)
        monkeypatch.setattr(session, "_grow_caches", lambda: None)
        grown = []
        while not session.exhausted:
            session.grow_cache(64)
            grown.append(session.capacity)
        sizes.append(grown)
    assert {grown[-1] for grown in sizes} == {150}
    assert set().union(*sizes) <= {64, 128, 150}


def test_codes_up_to_the_end_of_the_context_are_those_of_a_longer_one(model, monkeypatch):
    """The row that ends first continues beyond the context, where its frames are discarded."""
    options = {"seed": 0, "top_k": 5, "max_new_tokens": 100}
    requests = [model.prepare_custom_voice(TEXTS[i], "ryan", "english", **options) for i in (3, 1)]
    whole = model.synthesize(requests)
    assert [len(speech.codes) for speech in whole] == [99, 99]
    monkeypatch.setattr(sessions, "MIN_CAPACITY", 32)
    monkeypatch.setattr(sessions, "FRAMES_PER_CALL", 8)
    positions = [len(r.prompt) for r in requests]
    assert positions[0] > positions[1]
    context = positions[0] + 41
    short = with_context(model, context)
    session = sessions.Session(short.config, short.params, requests)
    assert session.limits == [context - used for used in positions]
    for codes, speech, limit in zip(
        sessions.generate_codes(session), whole, session.limits, strict=True
    ):
        np.testing.assert_array_equal(codes, speech.codes[:limit])
    assert session.capacity == context < positions[0] + session.frames_asked


def test_ended_distinguishes_natural_ends_from_cut_speech(model):
    request = model.prepare_custom_voice(TEXTS[1], "ryan", seed=3, max_new_tokens=9)
    (speech,) = model.synthesize([request])
    assert not speech.ended and len(speech.codes) == 8
    # End of speech is what came first in frame 5.
    talker = dataclasses.replace(model.config.talker, eos_id=int(speech.codes[5, 0]))
    config = dataclasses.replace(model.config, talker=talker)
    parts = model.params, model.speech_tokenizer, model.text_tokenizer, model.defaults
    ending = QwenTTS(config, *parts)
    (ended,) = ending.synthesize([request])
    assert ended.ended and len(ended.codes) == 5

    def frames_and_end(**options):
        chunks = ending.stream_custom_voice(TEXTS[1], "ryan", seed=3, **options)
        samples = 0
        while True:
            try:
                samples += len(next(chunks))
            except StopIteration as end:
                return samples // 1920, end.value

    assert frames_and_end(max_new_tokens=9) == (5, True)
    assert frames_and_end(max_new_tokens=5) == (4, False)


def test_supported_names(model, base):
    assert model.supported_speakers == ["dylan", "eric", "ryan", "vivian"]
    assert base.supported_speakers == []
    assert "auto" in model.supported_languages
    assert not any("dialect" in name for name in model.supported_languages)
    assert "custom_voice" in model.describe()["type"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate_custom_voice("Hi.", "bob"), "unknown speaker 'bob'"),
        (lambda m: m.generate_custom_voice("Hi.", "ryan", "klingon"), "unknown language"),
        (lambda m: m.generate_custom_voice("Hi.", "ryan", "sichuan_dialect"), "unknown language"),
        (lambda m: m.generate_voice_design("Hi.", "calm"), "custom_voice checkpoint"),
        (lambda m: m.generate_voice_clone("Hi.", ref_audio="x.wav"), "custom_voice checkpoint"),
        (lambda m: m.stream_voice_design("Hi.", "calm"), "custom_voice checkpoint"),
        (lambda m: m.embed_speaker("x.wav"), "custom_voice checkpoint"),
        (lambda m: m.generate_custom_voice("", "ryan"), "empty"),
        (lambda m: m.generate_custom_voice("  \n", "ryan"), "empty"),
        (lambda m: m.generate_custom_voice(5, "ryan"), "must be a string"),
        (lambda m: m.generate_custom_voice("Hi.", "ryan", seed=-1), "seed must be"),
        (lambda m: m.generate_custom_voice("Hi.", "ryan", seed=1.5), "seed must be"),
        (lambda m: m.generate_custom_voice("Hi.", "ryan", num_beams=2), "num_beams"),
        (lambda m: m.generate_custom_voice("Hi.", 5), "unknown speaker '5'"),
        (lambda m: m.generate_custom_voice("Hi.", 0), "unknown speaker '0'"),
        (lambda m: m.synthesize([]), "list of requests is empty"),
        (lambda m: m.stream_custom_voice("Hi.", "ryan", chunk_frames=(0,)), "chunk_frames"),
        (lambda m: m.stream_custom_voice("Hi.", "ryan", chunk_frames=()), "chunk_frames"),
        (lambda m: m.stream_custom_voice("Hi.", "ryan", chunk_frames=4), "chunk_frames"),
        (lambda m: m.stream_custom_voice("Hi.", "ryan", chunk_frames=(1, 1.5)), "chunk_frames"),
        (lambda m: m.stream_custom_voice("Hi.", "ryan", chunk_frames=(True,)), "chunk_frames"),
        (lambda m: m.stream_custom_voice("Hi.", "ryan", chunk_frames=np.ones(2)), "chunk_frames"),
        (
            lambda m: m.generate_custom_voice("word " * 40000, "ryan", split=False),
            "model's context is 32768",
        ),
    ],
)
def test_a_bad_request_is_one_clear_error(model, call, message):
    with pytest.raises(QTTSError, match=message):
        call(model)


def test_chunk_sizes_may_be_an_array(model):
    options = {"seed": 3, "max_new_tokens": 4, "chunk_frames": np.array([1, 2])}
    chunks = list(model.stream_custom_voice("Hi.", "ryan", **options))
    assert [len(chunk) // 1920 for chunk in chunks] == [1, 2]


@pytest.mark.parametrize("rows", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_decode_kernels_give_the_codes_of_the_plain_path(model, monkeypatch, rows):
    """Three rows of different lengths run as four."""
    from qtts_jax.layers import dispatch

    requests = [
        model.prepare_custom_voice(text, "ryan", "english", seed=5 + i, max_new_tokens=7 - i)
        for i, text in enumerate((TEXTS * 2)[:rows])
    ]
    codes = {}
    for backend in ("plain", "interpret"):
        monkeypatch.setattr(dispatch, "override", backend)
        # The backend is chosen while tracing, so each needs programs of its own.
        monkeypatch.setattr(sessions, "programs", Programs)
        codes[backend] = [s.codes for s in model.synthesize(requests)]
    for fused, plain in zip(codes["interpret"], codes["plain"], strict=True):
        np.testing.assert_array_equal(fused, plain)


@pytest.mark.slow
def test_int8_weights_stay_close_and_the_kernels_agree(model, monkeypatch):
    from qtts_jax.layers import dispatch
    from qtts_jax.layers.quantized_weights import quantize_params
    from qtts_jax.models.tts_model import TTSModel

    params = quantize_params(TTSModel, model.config, model.params, "int8")
    request = model.prepare_custom_voice(TEXTS[0], "ryan", "english", seed=5, max_new_tokens=4)
    session = sessions.Session(model.config, params, [request])
    exact = sessions.Session(model.config, model.params, [request])
    error = np.linalg.norm(session.state.hidden - exact.state.hidden)
    assert 0 < error < 0.1 * np.linalg.norm(exact.state.hidden)
    codes = []
    for backend in ("plain", "interpret"):
        monkeypatch.setattr(dispatch, "override", backend)
        monkeypatch.setattr(sessions, "programs", Programs)
        codes.append(sessions.generate_codes(sessions.Session(model.config, params, [request]))[0])
    np.testing.assert_array_equal(*codes)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_checkpoint_loads_in_smaller_weights(converted, kind):
    from qtts_jax.layers.quantized_weights import quantize_params
    from qtts_jax.models.tts_model import TTSModel

    directory = converted("custom_voice")
    full = QwenTTS.from_pretrained(directory, dtype="float32")
    small = QwenTTS.from_pretrained(directory, dtype="float32", weights=kind)
    want = quantize_params(TTSModel, full.config, full.params, kind)
    for a, b in zip(jax.tree.leaves(small.params), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_smaller_weights_are_placed_on_a_mesh(converted, kind):
    directory, mesh = converted("custom_voice"), make_mesh(1, 1)
    tts = QwenTTS.from_pretrained(directory, dtype="float32", weights=kind, mesh=mesh)
    head = tts.params["talker"]["codec_head"]["kernel"]
    down = tts.params["talker"]["transformer"]["layers"][0]["ffn"]["down"]["kernel"]
    assert head.values.dtype == np.int8 and down.packed == (kind == "int4")
    assert all(x.sharding.mesh == mesh for x in jax.tree.leaves((head, down)))
    assert tts.speech_tokenizer.mesh == mesh


def test_int4_speech_is_the_same_streamed_and_whole(converted):
    tts = QwenTTS.from_pretrained(converted("custom_voice"), dtype="float32", weights="int4")
    options = {"seed": 3, "max_new_tokens": 5}
    asked = tts.prepare_custom_voice(TEXTS[1], "ryan", "english", **options)
    whole = tts.synthesize([asked])[0]
    stream = tts.stream_custom_voice(TEXTS[1], "ryan", "english", chunk_frames=[4], **options)
    streamed = np.concatenate(list(stream))
    assert np.abs(whole.wave).max() > 0 and len(whole.codes) == 4
    np.testing.assert_allclose(streamed, whole.wave, atol=1e-5)


def test_weights_that_do_not_exist_are_refused(converted):
    directory = converted("custom_voice")
    with pytest.raises(RequestError, match="'int8', 'fp8' or 'int4', not 'int2'"):
        QwenTTS.from_pretrained(directory, weights="int2")
