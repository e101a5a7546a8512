"""A 25 Hz tokenizer of some ten thousand parameters whose halves agree, and batches for it."""

from dataclasses import replace

import numpy as np

from qtts_jax.configs.presets import tiny_tokenizer_25hz, tokenizer_25hz
from qtts_jax.data.transcribed_batches import TEXT_END
from qtts_jax.training.tokenizer_25hz.config import HeadsConfig

CODE = 640  # samples of 16 kHz
HEADS = HeadsConfig(
    TEXT_END + 1, text_width=32, text_heads=2, text_layers=1, mel_channels=16, mel_layers=1
)


def toy_config(entries=16, codebook_width=8):
    """Windows of 10 codes, blocks of 2 codes, 20 samples (of 2 kHz) a mel frame."""
    config = tiny_tokenizer_25hz(tokenizer_25hz())
    decoder = config.decoder
    dit = replace(
        decoder.dit, layers=2, look_ahead_layers=(0,), look_back_layers=(1,), n_mels=20, block=8
    )
    reference = replace(dit.reference_encoder, n_mels=20)
    vocoder = replace(
        decoder.vocoder,
        n_mels=20,
        width=8,
        kernel_sizes=(3,),
        dilations=((1, 3, 5),),
        upsample_rates=(5, 4),
        upsample_kernels=(11, 8),
    )
    return replace(
        config,
        encoder=replace(
            config.encoder,
            n_mels=20,
            window=20,
            layers=2,
            quantizer_layer=1,
            entries=entries,
            codebook_width=codebook_width,
        ),
        decoder=replace(
            decoder,
            dit=replace(dit, code_entries=entries, reference_encoder=reference),
            vocoder=vocoder,
        ),
        output_sample_rate=2000,
        decode_upsample_rate=80,
    )


def toy_speech(codes, seed=0, rate=16000):
    """A row of gliding tones for every length in codes, float32 [n]."""
    rng = np.random.default_rng(seed)
    waves = []
    for n in codes:
        t = np.arange(n * rate // 25) / rate
        tones = [np.sin(rng.uniform(600, 6000) * t + rng.uniform(0, 9000) * t**2) for _ in range(3)]
        waves.append((0.2 * sum(tones)).astype(np.float32))
    return waves


def toy_transcripts(codes=(14, 9, 3, 12), seed=0):
    """A batch of `TranscribedBatches`: speech of so many codes a row, with a few letters each."""
    rng = np.random.default_rng(seed)
    waves = toy_speech(codes, seed)
    audio = np.zeros((len(codes), max(codes) * CODE), np.float32)
    for row, wave in zip(audio, waves, strict=True):
        row[: len(wave)] = wave
    lengths = rng.integers(3, 7, len(codes)).astype(np.int32)
    text = rng.integers(97, 123, (len(codes), 8)).astype(np.int32)
    for row, n in zip(text, lengths, strict=True):
        row[n - 1] = TEXT_END
        row[n:] = 0
    frames = 4 * np.asarray(codes, np.int32)
    rows = len(codes)
    return {
        "audio": audio,
        "frames": frames,
        "frames_per_row": np.full(rows, frames.mean(), np.float32),
        "text": text,
        "text_length": lengths,
        "text_per_row": np.full(rows, lengths.mean(), np.float32),
    }


def toy_flow_batch(lengths=(8, 5), seed=0):
    """A batch of `FlowBatches`; the mel of every code is a pattern of its own."""
    rng = np.random.default_rng(seed)
    dit = toy_config().decoder.dit
    rows, longest = len(lengths), max(lengths)
    patterns = np.random.default_rng(5).normal(-3, 2, (dit.code_entries, dit.n_mels))
    codes = rng.integers(0, dit.code_entries, (rows, longest)).astype(np.int32)
    mel = np.repeat(patterns[codes], dit.repeats, axis=1).astype(np.float32)
    return {
        "codes": codes,
        "lengths": np.asarray(lengths, np.int32),
        "codes_per_row": np.full(rows, np.mean(lengths), np.float32),
        "mel": mel,
        "xvector": rng.standard_normal((rows, dit.xvector_width)).astype(np.float32),
        "reference": rng.normal(-3, 2, (rows, 24, dit.n_mels)).astype(np.float32),
        "reference_frames": rng.integers(12, 25, rows).astype(np.int32),
    }


def toy_vocoder_batch(rows=2, frames=12, seed=0):
    """A batch of `VocoderBatches`: a tone in every row, and mel frames with a bin for each tone.

    Every tone has a whole number of periods in a frame, so that frames alike have samples alike.
    """
    rng = np.random.default_rng(seed)
    c = toy_config().decoder.vocoder
    bins = rng.integers(0, c.n_mels, (rows, 1))
    mel = np.where(np.arange(c.n_mels) == bins, 0.0, -8.0)[:, None]
    time = np.arange(frames * c.samples_per_frame) / 2000
    return {
        "mel": np.repeat(mel, frames, axis=1).astype(np.float32),
        "audio": (0.3 * np.sin(2 * np.pi * 100 * (1 + bins % 5) * time)).astype(np.float32),
    }
