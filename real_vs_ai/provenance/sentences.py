"""Say what was found in sentences that keep their key and fields, so that they can be translated.

>>> told = Sentence("claim.made_with", tool="Midjourney")
>>> told, told.key, told.fields
('made with Midjourney', 'claim.made_with', {'tool': 'Midjourney'})
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Any


class Sentence(str):
    """An English sentence, or a part of one, out of `sentences.toml`.

    It is a plain `str` to tables, programs and logs. A field may be a sentence itself.
    """

    key: str
    fields: dict[str, Any]

    def __new__(cls, key: str, **fields: Any) -> Sentence:
        """Say it in English.

        Args:
            key: Section and name: "seal.trusted".
            fields: By the names in the sentence.

        Raises:
            KeyError: The table lacks the key, or the sentence names a field that is not given.
        """
        self = super().__new__(cls, _table()[key].format_map(fields))
        self.key, self.fields = key, fields
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.key, self.fields)


def _restore(key: str, fields: dict[str, Any]) -> Sentence:
    return Sentence(key, **fields)


@functools.cache
def _table() -> dict[str, str]:
    text = Path(__file__).with_name("sentences.toml").read_text(encoding="utf-8")
    sections = tomllib.loads(text)
    return {
        f"{section}.{name}": sentence
        for section, sentences in sections.items()
        for name, sentence in sentences.items()
    }
