"""A base model with few text ids, and utterances for it."""

import dataclasses

import numpy as np

from qtts_jax.configs.presets import tiny, tts_12hz
from qtts_jax.data.talker_examples import Bucket, Utterance, collate, layout_utterance
from qtts_jax.data.talker_layout import LayoutChoice, LayoutMix

ROLE = [1, 2, 3]
BOOKS, ENTRIES = 4, 96


def small(kind="voice_design", layers=2):
    """Four codebooks, few blocks, 96 entries a book; ids of tags are the real ones."""
    config = tiny(tts_12hz("1b7", kind))
    talker = config.talker
    predictor = dataclasses.replace(
        talker.code_predictor,
        codebooks=BOOKS,
        vocab_size=ENTRIES,
        transformer=dataclasses.replace(talker.code_predictor.transformer, layers=1),
    )
    talker = dataclasses.replace(
        talker,
        transformer=dataclasses.replace(talker.transformer, layers=layers),
        code_predictor=predictor,
        codebooks=BOOKS,
        text_vocab_size=128,
        speakers=(("ryan", 3061), ("eric", 2875)),
    )
    speaker = config.speaker_encoder
    if speaker is not None:
        speaker = dataclasses.replace(
            speaker,
            channels=(16, 16, 16),
            kernel_sizes=(5, 3, 1),
            dilations=(1, 2, 1),
            res2net_scale=2,
            attention_channels=8,
            se_channels=8,
        )
    return dataclasses.replace(
        config,
        talker=talker,
        speaker_encoder=speaker,
        tts_pad_id=100,
        tts_bos_id=101,
        tts_eos_id=102,
    )


MODEL = small()
CLONING = small("base")


def utterances(count, mels=False):
    """Utterances of unlike lengths, each with its own text, codes and voice."""
    out = []
    for i in range(count):
        rng = np.random.default_rng(i)
        frames = 3 + 2 * (i % 3)
        out.append(
            Utterance(
                text_ids=tuple(rng.integers(10, 90, 4 + i % 2).tolist()),
                codes=rng.integers(0, ENTRIES, (frames, BOOKS)),
                language="english",
                mel=rng.standard_normal((24 + i, 128)).astype(np.float32) if mels else None,
                speaker=None if mels else "ryan",
            )
        )
    return out


def any_choice(utterance, rng):
    """A layout that an utterance of `utterances` allows, drawn by the default mix."""
    stream_text, language_tag, *_ = LayoutMix().draw(rng, 1)[:, 0].tolist()
    preset = utterance.speaker is not None
    return LayoutChoice(stream_text=stream_text, language_tag=language_tag, preset=preset)


def batch_of(count, mels=False, extra=0):
    """One batch of `count` rows in mixed layouts; with `mels` for CLONING, otherwise for MODEL."""
    rng, config = np.random.default_rng(5), CLONING if mels else MODEL
    found = [layout_utterance(config, ROLE, u, any_choice(u, rng)) for u in utterances(count, mels)]
    return collate(config, found, Bucket(24 + extra, 8, 32 if mels else 0))
