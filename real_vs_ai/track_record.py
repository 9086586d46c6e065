"""Read from a model's report how often it answers, and how often it is wrong then.

>>> read_track_record({"uncertain_share": {"value": 0.8}, "error_when_certain": 0.05}).sentence
'Of 100 pictures like yours, about 20 get an answer; about 1 of these is wrong.'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# One wrong answer on 20 pictures of a kind would read as "5 of 100".
_FEWEST = 50


@dataclass(frozen=True)
class TrackRecord:
    """What was measured on the test images, with the model's own thresholds.

    Attributes:
        answered: Share of the images that got an answer, 0 to 1; None where it is not recorded.
        wrong: Share of these answers that were wrong, 0 to 1, or None.
        count: How many images were tested, or None.
        worst: The same of the kind of images with the most wrong answers; None where the report
            does not tell kinds apart.
        kinds: How many kinds were compared.
        name: What the report calls the kind; "" for all pictures.
    """

    answered: float | None = None
    wrong: float | None = None
    count: int | None = None
    worst: TrackRecord | None = None
    kinds: int = 0
    name: str = ""

    @property
    def mistakes(self) -> float:
        """Wrong answers for each image, 0 to 1."""
        return (self.answered or 0.0) * (self.wrong or 0.0)

    @property
    def sentence(self) -> str:
        """Both shares as numbers of 100 pictures, the worst kind's first; "" if not recorded."""
        if self.answered is None or self.wrong is None:
            return ""
        if self.worst is None:
            return f"Of 100 pictures like yours, {self._numbers}."
        return (
            f"Of 100 pictures of the kind that the model judges worst (“{self.worst.name}”, of "
            f"{self.kinds} kinds tested), {self.worst._numbers}. Of 100 pictures of all kinds, "
            f"{self._numbers}."
        )

    @property
    def _numbers(self) -> str:
        if self.answered == 0:
            return "none gets an answer"
        answers, mistakes = _of_100(self.answered), 100 * self.mistakes
        told = f"about {answers} {'gets' if answers == 1 else 'get'} an answer"
        if self.wrong == 0 and self.count:
            # With few answers, "none" would promise more than was measured.
            return f"{told}; none of {self.count * self.answered:,.0f} answers was wrong"
        if mistakes < 0.5:
            return f"{told}; fewer than 1 of these is wrong"
        return f"{told}; about {mistakes:.0f} of these {'is' if mistakes < 1.5 else 'are'} wrong"

    @property
    def unanswered(self) -> str:
        """How many pictures get no answer: "8 of 10", "5 of 100"; "" where it is not recorded."""
        if self.answered is None:
            return ""
        share = 1 - self.answered
        tenths = round(10 * share)
        return f"{tenths} of 10" if 0 < tenths < 10 else f"{_of_100(share)} of 100"


def read_track_record(metrics: Mapping[str, Any]) -> TrackRecord:
    """The track record in the test part of `metrics.json`, of which a model file holds most."""
    uncertain, count = metric_value(metrics, "uncertain_share"), metric_value(metrics, "n")
    sources = metrics.get("per_source")
    parts = sources.items() if isinstance(sources, Mapping) else ()
    records = [
        replace(read_track_record(part), name=name)
        for name, part in parts
        if isinstance(part, Mapping)
    ]
    kinds = [one for one in records if one.answered is not None and (one.count or 0) >= _FEWEST]
    worst = max(kinds, key=lambda kind: (kind.mistakes, -kind.answered), default=None)
    return TrackRecord(
        answered=None if uncertain is None else 1 - uncertain,
        wrong=metric_value(metrics, "error_when_certain"),
        count=None if count is None else int(count),
        worst=worst if len(kinds) > 1 else None,
        kinds=len(kinds),
    )


def metric_value(metrics: Mapping[str, Any], name: str) -> float | None:
    """The value of one metric of `metrics.json`, with or without its interval; None if absent."""
    entry = metrics.get(name)
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return float(value) if isinstance(value, (int, float)) else None


def _of_100(share: float) -> int:
    """A share as a number of 100; 0 and 100 only where they are exact."""
    return round(100 * share) if share in (0, 1) else min(99, max(1, round(100 * share)))
