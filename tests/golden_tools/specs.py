"""The varied architectures of the generated cases (see `generate.py`).

The official code accepts only powers of two as codebook sizes, and its speaker encoder only a
last channel count that is the sum of those between the first and the last.
"""

from __future__ import annotations

from tests.golden_tools.small_checkpoints import Spec, Stack

_ALL = (
    # One kv head, 8 books, narrower predictor (projection present), three decoder stages.
    Spec(
        name="cv_books8_kv1",
        kind="custom_voice",
        size="1b7",
        talker=Stack(layers=2, width=48, heads=6, kv_heads=1, head_dim=16, ffn=72),
        predictor=Stack(layers=1, width=32, heads=4, kv_heads=1, head_dim=16, ffn=56),
        books=8,
        entries=32,
        decoder=Stack(layers=2, width=32, heads=4, kv_heads=4, head_dim=8, ffn=40),
        encoder=Stack(layers=2, width=32, heads=4, kv_heads=4, head_dim=8, ffn=48),
        special_ids_seed=11,
        windows=(5, 12),
        decoder_channels=(24, 16, 32),
        decoder_rates=((10, 8, 6), (2, 2)),
        encoder_books=12,
        encoder_ratios=(10, 8, 6, 2),
    ),
    # 0.6B rules (instruct dropped, no projection), heads == kv heads, 16 books.
    Spec(
        name="cv_0b6_mha",
        kind="custom_voice",
        size="0b6",
        talker=Stack(layers=3, width=40, heads=5, kv_heads=5, head_dim=8, ffn=64),
        predictor=Stack(layers=3, width=40, heads=2, kv_heads=2, head_dim=12, ffn=48),
        books=16,
        entries=64,
        decoder=Stack(layers=1, width=24, heads=3, kv_heads=3, head_dim=8, ffn=32),
        encoder=Stack(layers=1, width=24, heads=3, kv_heads=3, head_dim=8, ffn=32),
        special_ids_seed=23,
        merges=40,
        windows=(72, 250),
        decoder_channels=(20, 24, 48),
        decoder_rates=((8, 6, 5, 4), (2,)),
        encoder_books=32,
        overrides={
            "talker_config.rope_theta": 500000,
            "talker_config.code_predictor_config.rope_theta": 10000,
        },
    ),
    # 5 books, predictor wider than the talker, deep and thin talker, wide text embedding.
    Spec(
        name="vd_books5_wide_predictor",
        kind="voice_design",
        size="1b7",
        talker=Stack(layers=5, width=32, heads=2, kv_heads=1, head_dim=24, ffn=40),
        predictor=Stack(layers=2, width=56, heads=4, kv_heads=2, head_dim=20, ffn=64),
        books=5,
        entries=16,
        decoder=Stack(layers=3, width=40, heads=2, kv_heads=2, head_dim=16, ffn=56),
        encoder=Stack(layers=3, width=40, heads=2, kv_heads=2, head_dim=16, ffn=64),
        text_width=72,
        special_ids_seed=37,
        merges=12,
        windows=(3, 4),
        decoder_channels=(32, 32, 32),
        decoder_rates=((8, 5, 4, 3), (2, 2)),
        encoder_books=8,
        encoder_filters=6,
        encoder_ratios=(8, 5, 4, 3, 2),
        overrides={
            "talker_config.rms_norm_eps": 1e-5,
            "talker_config.code_predictor_config.rms_norm_eps": 1e-5,
        },
    ),
    # Clone, predictor width differs from the talker's, another speaker encoder.
    Spec(
        name="vc_books8",
        kind="base",
        size="1b7",
        talker=Stack(layers=2, width=64, heads=4, kv_heads=2, head_dim=16, ffn=88),
        predictor=Stack(layers=2, width=40, heads=4, kv_heads=4, head_dim=10, ffn=56),
        books=8,
        entries=64,
        decoder=Stack(layers=2, width=32, heads=2, kv_heads=2, head_dim=16, ffn=48),
        encoder=Stack(layers=2, width=48, heads=4, kv_heads=4, head_dim=12, ffn=96),
        special_ids_seed=41,
        windows=(9, 16),
        encoder_books=10,
        speaker_encoder={
            "enc_channels": [24, 24, 24, 24, 72],
            "enc_attention_channels": 12,
            "enc_res2net_scale": 3,
            "enc_se_channels": 10,
        },
    ),
    # Clone at 16 books, 0.6B rules, equal widths; deeper speaker encoder of other kernels.
    Spec(
        name="vc_0b6_books16",
        kind="base",
        size="0b6",
        talker=Stack(layers=3, width=48, heads=3, kv_heads=3, head_dim=16, ffn=64),
        predictor=Stack(layers=1, width=48, heads=6, kv_heads=2, head_dim=8, ffn=80),
        books=16,
        entries=32,
        decoder=Stack(layers=2, width=24, heads=4, kv_heads=4, head_dim=8, ffn=40),
        encoder=Stack(layers=2, width=32, heads=2, kv_heads=2, head_dim=16, ffn=64),
        special_ids_seed=53,
        merges=30,
        windows=(4, 6),
        decoder_channels=(16, 16, 32),
        encoder_books=16,
        speaker_encoder={
            "enc_channels": [32, 32, 32, 32, 32, 128],
            "enc_kernel_sizes": [5, 3, 5, 3, 3, 1],
            "enc_dilations": [1, 2, 1, 3, 2, 1],
            "enc_attention_channels": 16,
            "enc_res2net_scale": 8,
            "enc_se_channels": 8,
        },
    ),
    # 25 frames a second: 960 samples each; two residual layers a stage in the encoder.
    Spec(
        name="cv_960_samples",
        kind="custom_voice",
        size="1b7",
        talker=Stack(layers=1, width=56, heads=7, kv_heads=7, head_dim=8, ffn=56),
        predictor=Stack(layers=4, width=24, heads=3, kv_heads=1, head_dim=8, ffn=40),
        books=3,
        entries=32,
        decoder=Stack(layers=2, width=32, heads=4, kv_heads=4, head_dim=8, ffn=40),
        encoder=Stack(layers=2, width=32, heads=4, kv_heads=4, head_dim=8, ffn=48),
        special_ids_seed=67,
        merges=60,
        windows=(16, 20),
        decoder_rates=((5, 4, 4, 3), (2, 2)),
        encoder_books=3,
        encoder_ratios=(8, 5, 4, 3),
        samples_per_frame=960,
        overrides={
            "speech_tokenizer.encoder_config.num_residual_layers": 2,
            "speech_tokenizer.encoder_config.kernel_size": 5,
            "speech_tokenizer.decoder_config.rope_theta": 5000,
        },
    ),
)
SPECS = {spec.name: spec for spec in _ALL}
