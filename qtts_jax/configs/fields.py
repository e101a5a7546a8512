"""Typed and complete reading of one JSON object of a Hugging Face style `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtts_jax.checks import is_whole_number
from qtts_jax.errors import ConfigError

# Fields that `PretrainedConfig` (transformers 4.57) or the official classes dump into every
# section and that change nothing here: generation settings of the base class, bookkeeping,
# dropout (inference only) and cache switches.
IGNORED_FIELDS = frozenset(
    [
        "_attn_implementation_autoset", "_name_or_path", "add_cross_attention", "architectures",
        "attention_dropout", "auto_map", "bad_words_ids", "begin_suppress_tokens",
        "bos_token_id", "chunk_size_feed_forward", "cross_attention_hidden_size",
        "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype", "early_stopping",
        "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty",
        "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label",
        "is_decoder", "is_encoder_decoder", "label2id", "length_penalty", "max_length",
        "max_window_layers", "min_length", "model_type", "no_repeat_ngram_size",
        "num_beam_groups", "num_beams", "num_return_sequences", "output_attentions",
        "output_hidden_states", "output_scores", "pad_token_id", "prefix", "problem_type",
        "pruned_heads", "remove_invalid_values", "repetition_penalty", "return_dict",
        "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params",
        "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tie_word_embeddings",
        "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
        "transformers_version", "typical_p", "use_bfloat16", "use_cache",
    ]
)  # fmt: skip

# What transformers 5 writes instead of `rope_theta` and `rope_scaling`.
ROPE_PARAMETERS = "rope_parameters"


class _Required:
    """Marks a field without a default."""


class Fields:
    """One parsed section, every field of which must be read, expected or known to be irrelevant.

    Args:
        data: the parsed section.
        where: its name in error messages.
    """

    REQUIRED = _Required()

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where} must be a JSON object, not {type(data).__name__}.")
        self._data = _with_older_rope_names(data, where)
        self._where = where
        self._seen: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether the section has the field, null included."""
        return name in self._data

    def is_null(self, name: str) -> bool:
        """Whether the field is there and null; it then counts as read."""
        null = self.has(name) and self._data[name] is None
        if null:
            self._seen.add(name)
        return null

    def _get(self, name: str, default: Any, kinds: tuple[type, ...], kind_name: str) -> Any:
        self._seen.add(name)
        if name not in self._data:
            if default is Fields.REQUIRED:
                raise ConfigError(
                    f"{self._where} lacks {name!r}; copy it from the checkpoint's own config.json."
                )
            return default
        value = self._data[name]
        if value is None and default is not Fields.REQUIRED:
            return default
        wrong_bool = isinstance(value, bool) and bool not in kinds
        if wrong_bool or not isinstance(value, kinds):
            raise ConfigError(f"{self._where}.{name} must be {kind_name}, not {value!r}.")
        return value

    def integer(self, name: str, default: Any = REQUIRED, *, minimum: int = 0) -> int:
        """A whole number, at least `minimum`."""
        value = self._get(name, default, (int,), "a whole number")
        if value is not None and value < minimum:
            fault = f"be at least {minimum}" if minimum else "not be negative"
            raise ConfigError(f"{self._where}.{name} must {fault}, but is {value}.")
        return value

    def number(self, name: str, default: Any = REQUIRED) -> float:
        """A number."""
        return float(self._get(name, default, (int, float), "a number"))

    def string(self, name: str, default: Any = REQUIRED) -> str:
        """A string."""
        return self._get(name, default, (str,), "a string")

    def integers(
        self, name: str, default: Any = REQUIRED, *, minimum: int | None = None
    ) -> tuple[int, ...]:
        """A list of whole numbers, as a tuple; each at least `minimum` (None: any)."""
        value = self._get(name, default, (list, tuple), "a list of whole numbers")
        if not all(map(is_whole_number, value)):
            raise ConfigError(f"{self._where}.{name} must hold whole numbers, not {value!r}.")
        if minimum is not None and any(v < minimum for v in value):
            raise ConfigError(
                f"{self._where}.{name} must hold numbers from {minimum} on, not {value!r}."
            )
        return tuple(value)

    def integer_lists(self, name: str, default: Any = REQUIRED) -> tuple[tuple[int, ...], ...]:
        """A list of lists of whole numbers, as tuples."""
        value = self._get(name, default, (list, tuple), "a list of lists of whole numbers")
        for row in value:
            whole = isinstance(row, list | tuple) and all(map(is_whole_number, row))
            if not whole:
                raise ConfigError(
                    f"{self._where}.{name} must hold lists of whole numbers, not {value!r}."
                )
        return tuple(tuple(row) for row in value)

    def boolean(self, name: str, default: Any = REQUIRED) -> bool:
        """True or false."""
        return self._get(name, default, (bool,), "true or false")

    def mapping(self, name: str, default: Any = REQUIRED) -> Any:
        """A JSON object (or the default)."""
        return self._get(name, default, (Mapping,), "a JSON object")

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        """A string out of `options`."""
        value = self.string(name)
        if value not in options:
            raise ConfigError(
                f"{self._where}.{name} is {value!r}; it must be one of {', '.join(options)}."
            )
        return value

    def choices(self, name: str, options: tuple[str, ...], default: Any) -> tuple[str, ...]:
        """A list of strings out of `options`, as a tuple."""
        value = self._get(name, default, (list, tuple), "a list")
        if any(each not in options for each in value):
            raise ConfigError(
                f"{self._where}.{name} is {value!r}; it may hold {', '.join(options)}."
            )
        return tuple(value)

    def expect(self, name: str, value: Any, *, optional: bool = True) -> Any:
        """The value of a field for which only this one is implemented."""
        self._seen.add(name)
        if name not in self._data:
            if not optional:
                raise ConfigError(f"{self._where} lacks {name!r}; it must be {value!r}.")
            return value
        if self._data[name] is None and optional:
            return value
        if self._data[name] != value:
            raise ConfigError(
                f"{self._where}.{name} is {self._data[name]!r}, but only {value!r} is supported."
            )
        return value

    def skip(self, *names: str) -> None:
        """Fields of this section that have no effect on inference."""
        self._seen.update(names)

    def finish(self) -> None:
        """Raise for the fields of the section that were neither read nor skipped.

        A field that is null is as good as absent.
        """
        given = {name for name, value in self._data.items() if value is not None}
        unknown = sorted(given - self._seen - IGNORED_FIELDS)
        if unknown:
            raise ConfigError(
                f"{self._where} has unknown field{'s' * (len(unknown) > 1)} "
                f"{', '.join(map(repr, unknown))}; remove them or check that this is a "
                "Qwen3-TTS checkpoint."
            )


def _with_older_rope_names(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A section in the form of transformers 4, with `rope_theta` and `rope_scaling`."""
    rope = data.get(ROPE_PARAMETERS)
    if rope is None:
        return data
    if not isinstance(rope, Mapping):
        raise ConfigError(f"{where}.{ROPE_PARAMETERS} must be a JSON object, not {rope!r}.")
    older = {name: value for name, value in data.items() if name != ROPE_PARAMETERS}
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    if scaling.keys() <= {"rope_type", "type"} and set(scaling.values()) <= {"default"}:
        scaling = {}
    for name, value in (("rope_theta", rope.get("rope_theta")), ("rope_scaling", scaling or None)):
        if value is None:
            continue
        if older.get(name) not in (None, value):
            raise ConfigError(
                f"{where}.{name} is {older[name]!r}, but {ROPE_PARAMETERS} says {value!r}; remove "
                "one of them."
            )
        older[name] = value
    return older
