"""Choose among labelled pictures: few of each source, and none that is nearly another one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from real_vs_ai.preparation.collections.evidence import UNKNOWN_CAMERA, Labelled, left_out
from real_vs_ai.preparation.likeness import HashIndex
from real_vs_ai.preparation.manifest import FileOutcome, rank

BEYOND_LIMIT = "beyond the limit of a source"
STRADDLING = "its prompt is in another split"
NEAR_DUPLICATE = "nearly the same as another picture"
DRAWN = "old, but with a palette or transparency, as drawings have"
# Two pictures of one source are also a series: a bracket of exposures, frames of a panorama.
_SERIES_BITS = 10
# Some of the pictures that are looked at are plain, or alike.
_LOOKED_AT = 1.5


@dataclass(frozen=True, slots=True)
class PixelReview:
    """What the pixels of a file show.

    Attributes:
        problem: Why it is no picture to take, or "".
        images: Name, whether it is mostly flat or of one colour, and pHash of each picture of it.
        drawn: Whether it has a palette or transparency, which no camera writes.
    """

    problem: str
    images: tuple[tuple[str, bool, int], ...] = ()
    drawn: bool = False


class Known:
    """What collections hold already.

    Attributes:
        hashes: pHash of each picture.
        roles: The split of each group.
    """

    def __init__(self, hashes: Iterable[int] = (), roles: Mapping[str, str] | None = None) -> None:
        self.hashes = HashIndex(hashes)
        self.roles = dict(roles or {})


def limit_sources(
    labelled: Sequence[Labelled], *, limit: int, role: str, known: Known, together: bool = False
) -> tuple[list[Labelled], list[FileOutcome]]:
    """Files to look at: of each source a few more than may be taken, chosen by their contents.

    Args:
        together: Whether the limit is that of all sources together.
    """
    chosen, outcomes = [], []
    sources: dict[tuple[str, str] | None, list[Labelled]] = defaultdict(list)
    for entry in labelled:
        if role and known.roles.get(entry.group, role) != role:
            outcomes.append(left_out(entry.file, STRADDLING))
        else:
            sources[None if together else entry.source].append(entry)
    for members in sources.values():
        members.sort(key=lambda entry: rank(0, entry.file.blob or entry.file.path))
        most = math.ceil(limit * _LOOKED_AT)
        chosen += members[:most]
        outcomes += [left_out(entry.file, BEYOND_LIMIT) for entry in members[most:]]
    return chosen, outcomes


def take(
    candidates: Sequence[Labelled],
    reviews: Sequence[PixelReview],
    *,
    limit: int,
    known: Known,
    together: bool = False,
) -> tuple[list[tuple[Labelled, PixelReview]], list[FileOutcome]]:
    """Take pictures that look usable and unlike all others, up to the limit of each source.

    Args:
        known: What other collections hold.
        together: Whether the limit is that of all sources together.
    """
    taken, outcomes = [], []
    here = HashIndex()
    by_source: dict[tuple[str, str] | None, list[int]] = defaultdict(list)
    for entry, review in zip(candidates, reviews, strict=True):
        if review.problem:
            outcomes.append(left_out(entry.file, review.problem))
            continue
        _, _, hashed = review.images[0]
        series = by_source[None if together else entry.source]
        if review.drawn and entry.made_by == UNKNOWN_CAMERA:
            outcomes.append(left_out(entry.file, DRAWN))
        elif len(series) >= limit:
            outcomes.append(left_out(entry.file, BEYOND_LIMIT))
        elif (
            known.hashes.has_near(hashed)
            or here.has_near(hashed)
            or any((hashed ^ other).bit_count() <= _SERIES_BITS for other in series)
        ):
            outcomes.append(left_out(entry.file, NEAR_DUPLICATE))
        else:
            series.append(hashed)
            here.add(hashed)
            taken.append((entry, review))
    return taken, outcomes


def take_all(
    entries: Sequence[Labelled], reviews: Sequence[PixelReview]
) -> tuple[list[tuple[Labelled, PixelReview]], list[FileOutcome]]:
    """Take all that look usable: what a list names, it names on purpose."""
    pairs = list(zip(entries, reviews, strict=True))
    outcomes = [left_out(entry.file, review.problem) for entry, review in pairs if review.problem]
    return [(entry, review) for entry, review in pairs if not review.problem], outcomes
