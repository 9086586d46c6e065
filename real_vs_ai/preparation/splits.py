"""Plan which image goes into which split, from contents and labels alone.

Files of one content (or one group of near-duplicates) share a split. The place of a content in
the shuffle comes from its hash and the seed, so neither the order of the listing, nor the names,
nor what else is in the data set decides it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from real_vs_ai.config import SPLITS
from real_vs_ai.errors import InputError
from real_vs_ai.preparation.placing import rank

# Where a content is in several splits already, it stays in the first of these.
_FIXED_ORDER = {"test": 0, "validation": 1, "train": 2, "": 3}
_MOST_LISTED_CONFLICTS = 5


class LabelConflictError(InputError):
    """The same content stands under two labels."""


@dataclass(frozen=True, slots=True)
class SplitImage:
    """An image as the plan sees it.

    Attributes:
        fixed_split: The split it must stay in, or "" to be divided.
        group: Images of one group share a split; "" means that its content is its group.
    """

    path: str
    sha256: str
    label: str
    fixed_split: str = ""
    group: str = ""

    @property
    def key(self) -> str:
        return self.group or self.sha256


@dataclass(frozen=True)
class SplitPlan:
    """The decision.

    Attributes:
        splits: Split of each image that is kept, by path.
        duplicates: The image kept in its place, for each second copy that is left out.
        leaks: The image of another split, for each that is left out because its content (or a
            near-duplicate) is in that split.
    """

    splits: dict[str, str]
    duplicates: dict[str, str] = field(default_factory=dict)
    leaks: dict[str, str] = field(default_factory=dict)

    def count(self, split: str) -> int:
        """How many images the split gets."""
        return sum(1 for value in self.splits.values() if value == split)


def plan_split(
    images: Sequence[SplitImage],
    *,
    fractions: Mapping[str, float],
    seed: int,
    keep_duplicates: bool,
) -> SplitPlan:
    """Divide images over splits by content, stratified by class.

    Args:
        fractions: Share of each split, summing to 1, for images without a fixed split. Shares
            that divide evenly are met exactly.
        keep_duplicates: Keep second copies, in the split of the first.

    Raises:
        LabelConflictError: The same content stands under two labels.
        InputError: The fractions are wrong, or a class has fewer contents than splits.
    """
    check_fractions(fractions)
    ordered = sorted(images, key=lambda image: (_FIXED_ORDER[image.fixed_split], image.path))
    first_of_content = _check_labels(ordered)
    kept, duplicates, leaks = _drop_copies(
        ordered, first_of_content, keep_duplicates=keep_duplicates
    )
    # With millions of images each of these takes some hundred megabytes.
    del ordered, first_of_content
    splits = {image.path: image.fixed_split for image in kept if image.fixed_split}
    kept = [image for image in kept if not image.fixed_split]
    divided = dict(_divide(kept, fractions=fractions, seed=seed))
    _fill_empty_splits(kept, divided, used=_used(fractions))
    splits.update(divided)
    return SplitPlan(splits, duplicates, leaks)


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raise InputError unless the fractions are of known splits, none negative, and sum to 1."""
    unknown = set(fractions) - set(SPLITS)
    total = sum(fractions.values())
    if unknown or any(share < 0 for share in fractions.values()) or abs(total - 1) > 1e-6:
        given = ", ".join(f"{name} {share:g}" for name, share in fractions.items())
        raise InputError(
            f"Expected fractions of {', '.join(SPLITS)}, none negative, that sum to 1, "
            f"found {given} (sum {total:g})."
        )


def _check_labels(images: Sequence[SplitImage]) -> dict[str, SplitImage]:
    """The first image of each content; raises LabelConflictError."""
    first: dict[str, SplitImage] = {}
    conflicts = []
    for image in images:
        other = first.setdefault(image.sha256, image)
        if other.label != image.label:
            conflicts.append(f"{other.path} ({other.label}) = {image.path} ({image.label})")
    if conflicts:
        listed = "; ".join(conflicts[:_MOST_LISTED_CONFLICTS])
        more = len(conflicts) - _MOST_LISTED_CONFLICTS
        raise LabelConflictError(
            "Expected every content under one label, found the same content under two: "
            f"{listed}{f'; and {more} more' if more > 0 else ''}. Remove the wrong one of each."
        )
    return first


def _drop_copies(
    ordered: Sequence[SplitImage], first_of_content: dict[str, SplitImage], *, keep_duplicates: bool
) -> tuple[list[SplitImage], dict[str, str], dict[str, str]]:
    """Leave out what would be in two splits, and second copies; test is looked at first."""
    # Without near-duplicates every content is its own group.
    first_of_group = {} if any(image.group for image in ordered) else first_of_content
    kept, duplicates, leaks = [], {}, {}
    for image in ordered:
        holder = first_of_group.setdefault(image.key, image)
        first = first_of_content[image.sha256]
        if holder.fixed_split != image.fixed_split:
            leaks[image.path] = holder.path
        elif first is not image and not keep_duplicates:
            duplicates[image.path] = first.path
        else:
            kept.append(image)
    return kept, duplicates, leaks


def _divide(
    images: Sequence[SplitImage], *, fractions: Mapping[str, float], seed: int
) -> Iterator[tuple[str, str]]:
    """Give (path, split) of each image."""
    used = _used(fractions)
    # Images of one group lie together then: no dictionary of a million lists is needed.
    ranked = sorted(images, key=lambda image: rank(seed, image.key))
    room = _targets(ranked, fractions=fractions, used=used)
    runs = (list(run) for _, run in groupby(ranked, key=attrgetter("key")))
    # Large groups first, so that the single images can fill what is left exactly.
    several = sorted((run for run in runs if len(run) > 1), key=len, reverse=True)
    for members in several:
        labels = Counter(image.label for image in members)
        split = max(
            used,
            key=lambda name: sum(
                # Relative to the split's share, so that small splits get groups too.
                number * room[label][name] / fractions[name]
                for label, number in labels.items()
            ),
        )
        for image in members:
            room[image.label][split] -= 1
            yield image.path, split
    grouped = {members[0].key for members in several}
    for image in ranked:
        if image.key not in grouped:
            split = next((name for name in used if room[image.label][name] > 0), used[0])
            room[image.label][split] -= 1
            yield image.path, split


def _used(fractions: Mapping[str, float]) -> list[str]:
    return [name for name in SPLITS if fractions.get(name, 0) > 0]


def _fill_empty_splits(
    images: Sequence[SplitImage], splits: dict[str, str], *, used: Sequence[str]
) -> None:
    """Give each split that lacks a class the smallest group that another split can spare.

    A content with many copies may take all the room that two splits have for its class.

    Raises:
        InputError: No split can spare one.
    """
    counts = Counter((image.label, splits[image.path]) for image in images)
    labels = sorted({image.label for image in images})
    empty = [(label, name) for label in labels for name in used if not counts[label, name]]
    if not empty:
        return
    groups: dict[str, list[SplitImage]] = {}
    for image in sorted(images, key=attrgetter("path")):
        groups.setdefault(image.key, []).append(image)
    for label, name in empty:
        for members in sorted(groups.values(), key=len):
            before = splits[members[0].path]
            taken = Counter(image.label for image in members)
            if taken[label] and all(counts[one, before] > n for one, n in taken.items()):
                for image in members:
                    splits[image.path] = name
                    counts[image.label, before] -= 1
                    counts[image.label, name] += 1
                break
        else:
            raise InputError(
                f"Expected images of class {label} that can go to {name}, found none that do not "
                "belong together with those of other splits. Add images of it."
            )


def _targets(
    ranked: Sequence[SplitImage], *, fractions: Mapping[str, float], used: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Images each split is to get, by class and split; images of one group lie together."""
    counts = Counter(image.label for image in ranked)
    contents: Counter[str] = Counter()
    for _, run in groupby(ranked, key=attrgetter("key")):
        contents.update({image.label for image in run})
    targets = {}
    for label, count in counts.items():
        if contents[label] < len(used):
            raise InputError(
                f"Expected at least {len(used)} different images of class {label}, one for each "
                f"of {', '.join(used)}, found {contents[label]}. Add images of it."
            )
        targets[label] = _share_out(count, fractions=fractions, used=used)
    return targets


def _share_out(
    count: int, *, fractions: Mapping[str, float], used: Sequence[str]
) -> dict[str, int]:
    """Whole numbers near count × fraction by largest remainders, at least 1 each, summing up."""
    exact = {name: count * fractions[name] for name in used}
    shares = {name: int(value + 1e-6) for name, value in exact.items()}
    by_remainder = sorted(used, key=lambda name: (shares[name] - exact[name], used.index(name)))
    for name in by_remainder[: count - sum(shares.values())]:
        shares[name] += 1
    for name in used:
        if shares[name] == 0:
            shares[max(used, key=lambda other: shares[other])] -= 1
            shares[name] = 1
    return shares
