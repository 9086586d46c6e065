"""Read from a model's report how often it answers, and how often it is wrong then.

>>> read_track_record({"uncertain_share": {"value": 0.8}, "error_when_certain": 0.05}).sentence
'Of 100 test pictures, about 20 get an answer; about 1 of these is wrong.'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrackRecord:
    """What was measured on the test images, with the model's own thresholds.

    Attributes:
        answered: Share of the images that got an answer, 0 to 1; None where it is not recorded.
        wrong: Share of these answers that were wrong, 0 to 1, or None.
        count: How many images were tested, or None.
    """

    answered: float | None = None
    wrong: float | None = None
    count: int | None = None

    @property
    def sentence(self) -> str:
        """Both shares as numbers of 100 pictures; "" where one is not recorded."""
        if self.answered is None or self.wrong is None:
            return ""
        answers = _of_100(self.answered)
        said = f"Of 100 test pictures, about {answers} get an answer"
        mistakes = self.answered * self.wrong * 100
        if self.wrong == 0 and self.count:
            # With few answers, "none" would promise more than was measured.
            return f"{said}; none of {self.count * self.answered:,.0f} answers was wrong."
        if mistakes < 0.5:
            return f"{said}; fewer than 1 of these is wrong."
        return f"{said}; about {mistakes:.0f} of these {'is' if mistakes < 1.5 else 'are'} wrong."

    @property
    def unanswered(self) -> str:
        """How many pictures get no answer: "8 of 10", "5 of 100"; "" where it is not recorded."""
        if self.answered is None:
            return ""
        share = 1 - self.answered
        tenths = round(10 * share)
        return f"{tenths} of 10" if 0 < tenths < 10 else f"{_of_100(share)} of 100"


def read_track_record(metrics: Mapping[str, Any]) -> TrackRecord:
    """The track record in the test part of `metrics.json`."""
    uncertain, count = metric_value(metrics, "uncertain_share"), metric_value(metrics, "n")
    return TrackRecord(
        answered=None if uncertain is None else 1 - uncertain,
        wrong=metric_value(metrics, "error_when_certain"),
        count=None if count is None else int(count),
    )


def metric_value(metrics: Mapping[str, Any], name: str) -> float | None:
    """The value of one metric of `metrics.json`, with or without its interval; None if absent."""
    entry = metrics.get(name)
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return float(value) if isinstance(value, (int, float)) else None


def _of_100(share: float) -> int:
    """A share as a number of 100; 0 and 100 only where they are exact."""
    return round(100 * share) if share in (0, 1) else min(99, max(1, round(100 * share)))
