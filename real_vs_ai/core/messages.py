"""Say every sentence that people read in their own language.

>>> told = Message("input.earlier", count=2)
>>> in_language(told, "en")
'Showing 2 pictures you uploaded earlier.'

Each language is one table, `languages/<language>.toml`: keys, and sentences with named fields. To
add a language, copy `en.toml` and translate it: tests find a missing sentence or field.
"""

from __future__ import annotations

import functools
import string
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENGLISH = "en"
_FOLDER = Path(__file__).with_name("languages")
# The forms of a sentence that counts.
PLURALS = frozenset({"one", "other"})
Entry = str | dict[str, str]


class Message(str):
    """An English sentence that knows its key and fields, so that it can be said in any language.

    It is a plain `str` to tables, programs and logs. A field may be a message too, or a tuple of
    texts, which are listed with commas.
    """

    key: str
    fields: dict[str, Any]

    def __new__(cls, key: str, **fields: Any) -> Message:
        """Say it in English.

        Args:
            key: Of `en.toml`: "conclusion.looks_ai".
            fields: By the names in the sentence; a sentence with two forms needs `count`.

        Raises:
            KeyError: The table lacks the key, or the sentence names a field that is not given.
        """
        self = super().__new__(cls, _fill(key, fields, ENGLISH))
        self.key, self.fields = key, fields
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.key, self.fields)


def _restore(key: str, fields: dict[str, Any]) -> Message:
    return Message(key, **fields)


def in_language(text: str, language: str) -> str:
    """The text in a language, if it is a `Message`; any other text as it is.

    Args:
        language: One of `languages()`. A sentence that its table lacks is said in English.
    """
    return _fill(text.key, text.fields, language) if isinstance(text, Message) else text


def choose_language(wanted: str | None) -> str:
    """The first language of a browser's list that there is a table for, else English.

    >>> choose_language("xx-XX, en-GB;q=0.8")
    'en'
    """
    for one in (wanted or "").split(","):
        language = one.partition(";")[0].strip().lower().partition("-")[0]
        if language in languages():
            return language
    return ENGLISH


@functools.cache
def languages() -> tuple[str, ...]:
    """The codes of all languages that there is a table for, sorted: "en", …"""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


@functools.cache
def read_table(language: str) -> Mapping[str, Entry]:
    """The sentences of a language by key; one that counts is a dictionary of its forms."""
    with (_FOLDER / f"{language}.toml").open("rb") as file:
        return _flat(tomllib.load(file))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for name, value in tree.items():
        if isinstance(value, str) or set(value) == PLURALS:
            entries[prefix + name] = value
        else:
            entries |= _flat(value, f"{prefix}{name}.")
    return entries


class _Formatter(string.Formatter):
    """Knows one conversion more: `{error!c}` begins with a capital letter.

    Numbers with a format get the marks of the language: "1.234,5".
    """

    def __init__(self, language: str):
        self.language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        said: str = super().format_field(value, format_spec)
        if not format_spec:
            return said
        marks = {",": "number.thousands", ".": "number.decimal"}
        return said.translate(
            {ord(mark): str(_entry(key, self.language)) for mark, key in marks.items()}
        )

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        if conversion == "c":
            return value[:1].upper() + value[1:]
        return super().convert_field(value, conversion)


def _fill(key: str, fields: Mapping[str, Any], language: str) -> str:
    entry = _entry(key, language)
    if not isinstance(entry, str):
        entry = entry["one" if fields["count"] == 1 else "other"]
    said = {name: _say(value, language) for name, value in fields.items()}
    return _Formatter(language).vformat(entry, (), said)


def _entry(key: str, language: str) -> Entry:
    return read_table(language).get(key) or read_table(ENGLISH)[key]


def _say(value: Any, language: str) -> Any:
    """A field as it stands in the sentence; numbers keep their type, for their format."""
    if isinstance(value, tuple):
        return ", ".join(in_language(one, language) for one in value)
    return in_language(value, language) if isinstance(value, str) else value
