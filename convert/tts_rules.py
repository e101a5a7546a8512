"""Table of a text-to-speech checkpoint: talker, code predictor and speaker encoder."""

from convert.layer_rules import linear
from convert.rules import Rule
from convert.speaker_encoder_rules import speaker_encoder_rules
from convert.transformer_rules import transformer_rules
from qtts_jax.configs.tts import TTSConfig

# Where the torch names of the code predictor begin.
CODE_PREDICTOR = "talker.code_predictor."


def tts_rules(config: TTSConfig) -> list[Rule]:
    """Rules for `TTSModel(config)`."""
    talker = config.talker
    rules = [
        Rule("talker.model.text_embedding.weight", "talker/text_embedding/table"),
        *linear("talker.text_projection.linear_fc1", "talker/text_projection/up"),
        *linear("talker.text_projection.linear_fc2", "talker/text_projection/down"),
        Rule("talker.model.codec_embedding.weight", "talker/codec_embedding/table"),
        *linear("talker.codec_head", "talker/codec_head"),
        *transformer_rules("talker.model", "talker/transformer", talker.transformer),
        *speaker_encoder_rules(),
    ]
    if talker.code_predictor is not None:
        torch, ours = CODE_PREDICTOR, "code_predictor/"
        stack = talker.code_predictor.transformer
        rules += [
            Rule(torch + "model.codec_embedding.{q}.weight", ours + "embeddings[{q}]"),
            Rule(torch + "lm_head.{q}.weight", ours + "heads[{q}]"),
            *linear(torch + "small_to_mtp_projection", ours + "input_projection"),
            *transformer_rules(torch + "model", ours + "transformer", stack),
        ]
    return rules
