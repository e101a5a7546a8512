"""Training data: manifest, prepared dataset, teacher features, codes, batches."""

from qtts_jax.data.codes import Codes, encode_dataset
from qtts_jax.data.dataset import Dataset, Record, Waves, load_waves
from qtts_jax.data.decoder_batches_25hz import FlowBatches, VocoderBatches
from qtts_jax.data.manifest import LANGUAGES, Clip, read_manifest
from qtts_jax.data.mel_clips import (
    clip_mels,
    clip_xvectors,
    normalized_waves,
    resampled_waves,
)
from qtts_jax.data.prepare import prepare
from qtts_jax.data.splits import same_text, split_of
from qtts_jax.data.talker_batches import TalkerBatchConfig, TalkerBatches
from qtts_jax.data.teacher import Features, teacher_features
from qtts_jax.data.tokenizer_batches import TokenizerBatches
from qtts_jax.data.transcribed_batches import TranscribedBatches, byte_ids
from qtts_jax.data.voice_descriptions import VoiceDescriptions, describe_voices
from qtts_jax.data.whisper_files import convert_whisper, load_whisper

__all__ = [
    "LANGUAGES",
    "Clip",
    "Codes",
    "Dataset",
    "Features",
    "FlowBatches",
    "Record",
    "TalkerBatchConfig",
    "TalkerBatches",
    "TokenizerBatches",
    "TranscribedBatches",
    "VocoderBatches",
    "VoiceDescriptions",
    "Waves",
    "byte_ids",
    "clip_mels",
    "clip_xvectors",
    "convert_whisper",
    "describe_voices",
    "encode_dataset",
    "load_waves",
    "load_whisper",
    "normalized_waves",
    "prepare",
    "read_manifest",
    "resampled_waves",
    "same_text",
    "split_of",
    "teacher_features",
]
