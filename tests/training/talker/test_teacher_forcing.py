"""Training sees what generation sees: the same inputs, the same logits at every position."""

import dataclasses

import jax
import numpy as np
import pytest

from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.data.talker_examples import Bucket, collate, layout_example
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.generation.frame_step import frame_step
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.models.speaker_encoder import SpeakerEncoder
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.talker.teacher_forcing import (
    first_targets,
    forced_frames,
    forced_hidden,
    predictor_logits,
)
from tests.support.helpers import assert_close

ROLE, TEXT = [1, 2, 3], [11, 12, 13, 14, 15]
FRAMES = 7
REFERENCE = np.arange(3 * 16).reshape(3, 16) * 7 % 2048
EMBEDDING = np.sin(np.arange(64)).astype(np.float32)

CLONE = SpeakerCondition(embedding=EMBEDDING)
IN_CONTEXT = SpeakerCondition(embedding=EMBEDDING, codes=REFERENCE, text_ids=(21, 22))
# Reference text so long that it trails into the generated frames.
LONG_TEXT = SpeakerCondition(embedding=EMBEDDING, codes=REFERENCE, text_ids=tuple(range(30, 40)))
LAYOUTS = {
    "preset": ("custom_voice", dict(voice=SpeakerCondition(speaker="ryan"), language="english")),
    "preset, dialect": ("custom_voice", dict(voice=SpeakerCondition(speaker="eric"))),
    "instruction": (
        "custom_voice",
        dict(voice=SpeakerCondition(speaker="ryan"), instruct_ids=[41, 42, 43, 44]),
    ),
    "description": ("voice_design", dict(voice=SpeakerCondition(), instruct_ids=[41, 42, 43])),
    "x-vector": ("base", dict(voice=CLONE, language="german")),
    "in context": ("base", dict(voice=IN_CONTEXT)),
    "in context, surplus text": ("base", dict(voice=LONG_TEXT, language="english")),
}
CASES = [(name, stream) for name in LAYOUTS for stream in (False, True)]


@pytest.fixture(scope="module")
def models():
    out = {}
    for kind in ("custom_voice", "voice_design", "base"):
        config = tiny(tts_12hz("1b7", kind))
        # Few text ids, as the table is most of a tiny model; tags keep their real numbers.
        talker = dataclasses.replace(config.talker, text_vocab_size=128)
        config = dataclasses.replace(
            config, talker=talker, tts_pad_id=100, tts_bos_id=101, tts_eos_id=102
        )
        params = initialize(TTSModel, config, seed=1)
        # Logits far enough apart, and long enough embeddings, for differences to show.
        params = jax.tree.map(lambda x: x if x.ndim < 2 else 5 * x, params)
        head = params["talker"]["codec_head"]
        head["kernel"] = head["kernel"].at[talker.eos_id].set(0)  # never the best
        out[kind] = (config, params)
    return out


def build(config, name, stream):
    return build_prompt(config, ROLE, TEXT, **LAYOUTS[name][1], stream_text=stream)


@pytest.fixture(scope="module", params=["custom_voice", "voice_design", "base"])
def both(request, models):
    """Every layout of a model type, as (names, generated, forced); each holds the codes, the
    logits of codebook 0 [B, F + 1, V] and those of the others [B, F, Q - 1, V']."""
    config, params = models[request.param]
    names = [case for case in CASES if LAYOUTS[case[0]][0] == request.param]
    found = [build(config, *case) for case in names]
    with jax.default_matmul_precision("highest"):
        generated = generate(config, params, found)
        forced = teacher_forced(config, params, found, generated[0])
    return names, generated, forced


def generate(config, params, found):
    """Greedy frames with the logits they were chosen from, as generation makes them."""
    greedy = SamplingParams(do_sample=False, subtalker_dosample=False, repetition_penalty=1.0)
    session = Session(config, params, [Request(p, greedy, seed=0) for p in found])
    graphdef, _ = abstract(TTSModel, config)
    captured = {}

    def record(logits, book):
        captured[int(book)] = np.asarray(logits)

    original = CodePredictor.generate

    def recording(self, hidden, first, choose):
        def spy(logits, book):
            jax.debug.callback(record, logits, book)
            return choose(logits, book)

        return original(self, hidden, first, spy)

    @jax.jit
    def step(params, conditions, state):
        model = bind(graphdef, params)
        logits = model.talker.logits(state.hidden)
        return logits, *frame_step(model, session.methods, conditions, state)

    codes, first, rest = [], [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CodePredictor, "generate", recording)
        state = session.state
        for _ in range(FRAMES + 1):
            logits, frame, state = step(params, session.conditions, state)
            jax.effects_barrier()
            first.append(logits)
            codes.append(frame)
            rest.append(np.stack([captured[i + 1] for i in range(len(captured))], axis=1))
    rows = len(found)
    stack = [np.stack(x, axis=1)[:rows] for x in (codes, first, rest)]
    assert (stack[0] >= 0).all(), "a row ended early; the end is a matter of other tests"
    return stack[0][:, :FRAMES], stack[1], stack[2][:, :FRAMES]


def teacher_forced(config, params, found, codes):
    """The same logits from one pass over the laid out examples, shuffled among longer padding."""
    examples = [layout_example(config, p, c) for p, c in zip(found, codes, strict=True)]
    longest = max(len(e.rows) for e in examples)
    batch = collate(config, examples, Bucket(longest + 3, FRAMES + 2))
    graphdef, _ = abstract(TTSModel, config)

    @jax.jit
    def run(params, batch):
        model = bind(graphdef, params)
        hidden = forced_hidden(model, batch)
        frames = forced_frames(hidden, batch)
        first = model.talker.embed_codec(batch["codes"][..., 0])
        flat = [x.reshape(-1, x.shape[-1]) for x in (frames, first, batch["codes"][..., 1:])]
        rest = predictor_logits(model.code_predictor, *flat)
        rest = rest.reshape(*frames.shape[:2], *rest.shape[1:])
        positions = hidden.shape[1]
        targets = first_targets(batch, positions, config.talker.eos_id)
        return model.talker.logits(hidden), targets, rest

    logits, targets, rest = map(np.asarray, run(params, batch))
    at = [np.flatnonzero(row >= 0) for row in targets]
    first = np.stack([row[i] for row, i in zip(logits, at, strict=True)])
    wanted = np.stack([row[i] for row, i in zip(targets, at, strict=True)])
    return wanted, first, rest[:, :FRAMES]


def test_every_layout_is_covered():
    assert {kind for kind, _ in LAYOUTS.values()} == {"custom_voice", "voice_design", "base"}
    assert len(CASES) == 14


def test_teacher_forced_logits_equal_those_of_generation(both):
    names, (_, first, rest), (_, forced_first, forced_rest) = both
    for i in range(len(names)):
        assert_close(forced_first[i], first[i], relative=1e-5)
        assert_close(forced_rest[i], rest[i], relative=1e-5)


def test_targets_are_the_frames_that_were_generated_and_then_the_end(both, models):
    _, (codes, first, _), (targets, _, _) = both
    eos = models["base"][0].talker.eos_id
    np.testing.assert_array_equal(targets[:, :FRAMES], codes[..., 0])
    assert (targets[:, FRAMES] == eos).all()
    # The aligned logits really have the codes as their best choice, so that a shift would show.
    usable = first[:, :FRAMES, :2048]
    np.testing.assert_array_equal(np.argmax(usable, -1), codes[..., 0])
    assert len(np.unique(codes[..., 0])) > FRAMES


def test_a_shifted_alignment_would_fail(both):
    _, (_, first, rest), (_, forced_first, forced_rest) = both
    for ours, wanted in ((forced_first, first), (forced_rest, rest)):
        with pytest.raises(AssertionError):
            assert_close(ours[:, 1:], wanted[:, :-1], relative=1e-2)


def test_the_x_vector_of_a_mel_takes_the_place_of_a_given_one(models):
    config, params = models["base"]
    mel = np.random.default_rng(0).standard_normal((40, 128)).astype(np.float32)
    encoder = abstract(SpeakerEncoder, config.speaker_encoder)[0]
    codes = np.arange(2 * 16).reshape(2, 16)
    found = []
    with jax.default_matmul_precision("highest"):
        embed = jax.jit(lambda params, mel: bind(encoder, params)(mel))
        spoken = embed(params["speaker_encoder"], mel[None])[0]
        for embedding, voice_mel in ((spoken, None), (0 * EMBEDDING, mel)):
            voice = SpeakerCondition(embedding=np.asarray(embedding))
            prompt = build_prompt(config, ROLE, TEXT, voice=voice)
            found.append(layout_example(config, prompt, codes, mel=voice_mel))
        batch = collate(config, found, Bucket(32, 4, 64))
        graphdef = abstract(TTSModel, config)[0]
        hidden = jax.jit(lambda p, batch: forced_hidden(bind(graphdef, p), batch))(params, batch)
    length = len(found[0].rows)
    assert_close(hidden[1, :length], hidden[0, :length], relative=1e-5)
