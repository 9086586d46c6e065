"""Read from a model's report what it finds, what it lets pass, and whom it accuses.

>>> clean = {"generated": {"found": {"value": 0.4}, "called_real": {"value": 0.03}},
...          "real": {"accused": {"value": 0.002}}}
>>> record = read_track_record({"conditions": {"clean": clean}})
>>> record.of_accusation
'Of 100 photographs it accuses fewer than 1.'
>>> print(record.of_no_sign[:64])
Of 100 AI pictures it finds about 40 and lets about 3 pass. This
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from real_vs_ai.core.messages import Message

_CLEAN = "clean"
# Fewer pictures of a kind would read as a precise share.
_FEWEST = 20


@dataclass(frozen=True)
class Kind:
    """What was measured on the pictures of one generator, or of one collection of photographs.

    Attributes:
        name: What the report calls the kind: "Midjourney".
        found: Share of its pictures that the model calls AI-generated, 0 to 1.
        passed: Share that it calls photographs, 0 to 1.
    """

    name: str
    found: float
    passed: float


@dataclass(frozen=True)
class Condition:
    """What was measured on test pictures in one state: as published, as the web sends them on, …

    Attributes:
        name: "clean", "web", "hard", …
        found: Share of the AI-generated pictures that the model calls so, 0 to 1.
        passed: Share of the AI-generated pictures that it calls photographs, 0 to 1.
        accused: Share of the photographs that it calls AI-generated, 0 to 1.
    """

    name: str
    found: float
    passed: float
    accused: float


@dataclass(frozen=True)
class TrackRecord:
    """What was measured on the test images, with the model's own thresholds.

    Attributes:
        conditions: The clean pictures first; () where it is not recorded.
        generators: Kinds of AI-generated pictures, the hardest first.
    """

    conditions: tuple[Condition, ...] = ()
    generators: tuple[Kind, ...] = ()

    @property
    def clean(self) -> Condition | None:
        """On pictures as they were published; None where it is not recorded."""
        return self.conditions[0] if self.conditions else None

    @property
    def hardest(self) -> Kind | None:
        """The kind of AI-generated pictures that the model lets pass most."""
        return max(self.generators, key=lambda kind: (kind.passed, -kind.found), default=None)

    @property
    def of_no_sign(self) -> str:
        """How much it means that no sign was found; "" where it is not recorded."""
        if self.clean is None:
            return ""
        found, passed = (of_100(share) for share in (self.clean.found, self.clean.passed))
        if self.hardest is None or self.hardest.passed <= self.clean.passed:
            return Message("record.no_sign", found=found, passed=passed)
        return Message(
            "record.no_sign_hardest",
            found=found,
            passed=passed,
            kind=self.hardest.name,
            hardest=of_100(self.hardest.passed),
        )

    @property
    def of_accusation(self) -> str:
        """How often the model accuses a photograph; "" where it is not recorded."""
        if self.clean is None:
            return ""
        return Message("record.accusation", accused=of_100(self.clean.accused))

    def misses_most_of(self, generator: str) -> bool:
        """Whether the model finds less than half of this tool's pictures, as far as is known."""
        own = (kind for kind in self.generators if kind.name.lower() in generator.lower())
        known = next(own, self.clean)
        return known is not None and known.found < 0.5


def read_track_record(metrics: Mapping[str, Any]) -> TrackRecord:
    """The track record in the test part of `metrics.json`, which a model file holds too."""
    conditions = _part(metrics, "conditions")
    names = sorted(conditions, key=lambda name: name != _CLEAN)
    read = tuple(filter(None, (_read_condition(name, _part(conditions, name)) for name in names)))
    rows = _part(metrics, "weakest").get("generators")
    kinds = map(_read_kind, rows if isinstance(rows, Sequence) else ())
    return TrackRecord(
        conditions=read if read and read[0].name == _CLEAN else (),
        generators=tuple(filter(None, kinds)),
    )


def metric_value(metrics: Mapping[str, Any], name: str) -> float | None:
    """The value of one metric of `metrics.json`, with or without its interval; None if absent."""
    entry = metrics.get(name)
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return float(value) if isinstance(value, (int, float)) else None


def of_100(share: float) -> str:
    """A share as a number of 100 pictures, to follow "Of 100 photographs".

    >>> of_100(0.394), of_100(0.001), of_100(0.0), of_100(0.999)
    ('about 39', 'fewer than 1', 'none', 'about 99')
    """
    if share == 0:
        return Message("record.none")
    if share < 0.005:
        return Message("record.fewer_than_1")
    if share == 1:
        return "100"
    return Message("record.about", number=min(99, max(1, round(100 * share))))


def _part(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = tree.get(name)
    return part if isinstance(part, Mapping) else {}


def _read_condition(name: str, entry: Mapping[str, Any]) -> Condition | None:
    generated, real = _part(entry, "generated"), _part(entry, "real")
    found, passed = metric_value(generated, "found"), metric_value(generated, "called_real")
    accused = metric_value(real, "accused")
    if found is None or passed is None or accused is None:
        return None
    return Condition(name, found, passed, accused)


def _read_kind(row: Any) -> Kind | None:
    """A row of the report; None where it is of few pictures, or not whole."""
    if not isinstance(row, Mapping) or (metric_value(row, "n") or 0) < _FEWEST:
        return None
    found, passed = metric_value(row, "found"), metric_value(row, "called_real")
    if found is None or passed is None:
        return None
    return Kind(str(row.get("name", "")), found, passed)
