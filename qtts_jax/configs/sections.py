"""Hugging Face style `config.json` sections as tables that are read and written by one function.

A `Section` lists the fields of one JSON object in the order in which they are written:

    SPEAKER_ENCODER = Section(
        SpeakerEncoderConfig,
        "speaker_encoder_config",
        hf("enc_dim", "embedding_dim", integer(1)),
        ...
    )

reads: the field `enc_dim` is a whole number of at least 1 and the attribute `embedding_dim` of the
dataclass. An attribute may be dotted (`transformer.width`), because a section often holds the
fields of several dataclasses. A field of a file that no row of its table names is an error.
"""

from __future__ import annotations

import functools
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qtts_jax.configs.fields import Fields

# Reads the value of a field: (fields, name, default) -> value.
Kind = Callable[[Fields, str, Any], Any]
# The values read so far, by dotted attribute.
Values = Mapping[str, Any]
REQUIRED = Fields.REQUIRED

number: Kind = Fields.number
string: Kind = Fields.string
boolean: Kind = Fields.boolean
integer_lists: Kind = Fields.integer_lists


def integer(minimum: int = 0) -> Kind:
    """Whole numbers of at least `minimum`."""
    return lambda f, name, default: f.integer(name, default, minimum=minimum)


def integers(minimum: int | None = None) -> Kind:
    """Lists of whole numbers of at least `minimum` (None: any)."""
    return lambda f, name, default: f.integers(name, default, minimum=minimum)


@dataclass(frozen=True)
class Row:
    """One field of a section, in both directions.

    Attributes:
        name: the field that `write` fills; None for a row that is not written.
        attribute: dotted attribute of the configuration that `read` gives; None if it has none.
        read: (fields, values of earlier rows) -> value.
        write: configuration -> JSON value.
        late: read after the rows that are not late, because `read` needs their values.
        omit: leave the field out of the file where its value is None or empty.
    """

    name: str | None
    attribute: str | None
    read: Callable[[Fields, Values], Any]
    write: Callable[[Any], Any] | None = None
    late: bool = False
    omit: bool = False


def hf(
    name: str,
    attribute: str,
    kind: Kind,
    default: Any = REQUIRED,
    *,
    write: Callable[[Any], Any] | None = None,
    omit: bool = False,
) -> Row:
    """A field that is an attribute.

    Args:
        kind: its type.
        default: value where the file has none; a function of the other values may compute it.
        write: attribute -> JSON value; None writes tuples as lists and the rest as it is.
        omit: as of `Row`.
    """
    value = operator.attrgetter(attribute)
    to_json = write or _to_json
    late = callable(default)
    return Row(
        name,
        attribute,
        lambda f, values: kind(f, name, default(values) if late else default),
        lambda config: to_json(value(config)),
        late,
        omit,
    )


def only(name: str, value: Any, *, optional: bool = True, written: bool = True) -> Row:
    """A field for which only one value is implemented."""
    return Row(
        name if written else None,
        None,
        lambda f, values: f.expect(name, value, optional=optional),
        lambda config: value,
    )


def unread(name: str, value: Any) -> Row:
    """A field that the official reader wants and that has no effect here.

    Args:
        value: what is written, or a function of the configuration that gives it.
    """
    write = value if callable(value) else lambda config: value
    return Row(name, None, lambda f, values: f.skip(name), write)


def skipped(*names: str) -> Row:
    """Fields of files that have no effect on inference and are not written."""
    return Row(None, None, lambda f, values: f.skip(*names))


def derived(attribute: str, value: Any) -> Row:
    """An attribute that the section does not store.

    Args:
        value: its value, or a function of the values that were read.
    """
    read = (lambda f, values: value(values)) if callable(value) else (lambda f, values: value)
    return Row(None, attribute, read, late=True)


def subsection(name: str, attribute: str, section: Section[Any]) -> Row:
    """A field that is a section of its own, and an attribute that is a dataclass of its own."""
    value = operator.attrgetter(attribute)
    return Row(
        name,
        attribute,
        lambda f, values: section.read(f.mapping(name)),
        lambda config: section.write(value(config)),
    )


Config = TypeVar("Config")


class Section(Generic[Config]):
    """The table of one section.

    Args:
        kind: the dataclass that holds its values.
        where: name of the section in error messages.
        rows: its fields in the order of the file.
    """

    def __init__(self, kind: type[Config], where: str, *rows: Row) -> None:
        self._kind = kind
        self._where = where
        self._rows = rows

    def read(self, data: Mapping[str, Any]) -> Config:
        """The configuration that a parsed section describes.

        Raises:
            ConfigError: a needed field is missing, a field is unknown, or a value is impossible.
        """
        f = Fields(data, self._where)
        values: dict[str, Any] = {}
        for row in sorted(self._rows, key=lambda row: row.late):
            value = row.read(f, values)
            if row.attribute is not None:
                values[row.attribute] = value
        f.finish()
        return _build(self._kind, values)

    def write(self, config: Config) -> dict[str, Any]:
        """The section as JSON values, such that `read(write(config)) == config`."""
        data = {}
        for row in self._rows:
            if row.name is not None and row.write is not None:
                value = row.write(config)
                if not (row.omit and value in (None, [])):
                    data[row.name] = value
        return data


# They are strings, which are compiled anew at each asking: most of the time of `read`.
_type_hints = functools.cache(typing.get_type_hints)


def _build(kind: Callable[..., Config], values: Values) -> Config:
    """A dataclass, nested ones included, from its attributes by dotted name."""
    own = {name: value for name, value in values.items() if "." not in name}
    hints = _type_hints(kind)
    for name in {name.partition(".")[0] for name in values if "." in name}:
        inner = {
            k.removeprefix(f"{name}."): v for k, v in values.items() if k.startswith(f"{name}.")
        }
        own[name] = _build(hints[name], inner)
    return kind(**own)


def _to_json(value: Any) -> Any:
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value
