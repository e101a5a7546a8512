"""Table of the 25 Hz tokenizer."""

from convert.computed import Computed
from convert.rules import Rule
from convert.tokenizer_25hz_decoder_rules import decoder_rules
from convert.tokenizer_25hz_encoder_rules import encoder_rules
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig


def tokenizer_25hz_rules(config: Tokenizer25HzConfig) -> list[Rule | Computed]:
    """Rules for `Tokenizer25Hz(config)`."""
    return [*encoder_rules(config.encoder), *decoder_rules(config.decoder)]
