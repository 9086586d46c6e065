"""Plan which image goes into which split, from contents and labels alone, and name the images.

Files of one content (or one group of near-duplicates) share a split. The place of a content in
the shuffle comes from its hash and the seed, so neither the order of the listing, nor the names,
nor what else is in the data set decides it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter

from real_vs_ai.core.config import SPLITS
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.options import Options, option, shared
from real_vs_ai.core.parallel import Pool
from real_vs_ai.preparation.manifest import Fate, FileOutcome, ManifestRow, rank, unique_names

# Where a content is in several splits already, it stays in the first of these.
_FIXED_ORDER = {"test": 0, "validation": 1, "train": 2, "": 3}
_MOST_LISTED_CONFLICTS = 5
_ORIGIN = attrgetter("origin")


class LabelConflictError(InputError):
    """The same content stands under two labels."""


@dataclass(frozen=True, kw_only=True)
class PlacingOptions(Options):
    """What the splitters and the merger share."""

    near_duplicates: str = option(
        "report: list images that look alike (pHash within 3 bits); group: also keep them in one "
        "split; both decode every image and take several times as long",
        "off",
        choices=("off", "report", "group"),
    )
    overwrite: bool = shared("--overwrite")
    workers: int = shared("--workers")
    cluster: str | None = shared("--cluster")
    # Tests of other things leave it out, for it takes a second.
    confounds: bool = True

    @property
    def pool(self) -> Pool:
        """Where the work runs."""
        return Pool(self.workers, self.cluster)


@dataclass(frozen=True)
class SplitPlan:
    """The decision.

    Attributes:
        splits: Split of each image that is kept, by origin.
        duplicates: The image kept in its place, for each second copy that is left out.
        leaks: The image of another split, for each that is left out because its content (or a
            near-duplicate) is in that split.
    """

    splits: dict[str, str]
    duplicates: dict[str, str] = field(default_factory=dict)
    leaks: dict[str, str] = field(default_factory=dict)

    def outcomes(self) -> list[FileOutcome]:
        """What is left out, and why."""
        copies = [FileOutcome(path, Fate.DUPLICATE, kept) for path, kept in self.duplicates.items()]
        return copies + [FileOutcome(path, Fate.LEAK, kept) for path, kept in self.leaks.items()]


def plan_split(
    images: Sequence[ManifestRow],
    *,
    groups: Mapping[str, str],
    fractions: Mapping[str, float],
    seed: int,
    keep_duplicates: bool,
) -> SplitPlan:
    """Divide images over splits by content, stratified by class.

    Args:
        images: Their `split` is the one that they must stay in, or "" to be divided.
        groups: Images of one group share a split: group by origin. Others share it by content.
        fractions: Share of each split, summing to 1, for images without a fixed split. Shares
            that divide evenly are met exactly.
        keep_duplicates: Keep second copies, in the split of the first.

    Raises:
        LabelConflictError: The same content stands under two labels.
        InputError: A class has fewer contents than splits.
    """
    ordered = sorted(images, key=lambda image: (_FIXED_ORDER[image.split], image.origin))
    kept, duplicates, leaks = _drop_copies(ordered, groups, keep_duplicates=keep_duplicates)
    # With millions of images it takes some hundred megabytes.
    del ordered
    splits = {image.origin: image.split for image in kept if image.split}
    divisible = [image for image in kept if not image.split]
    # Images of one group lie together then: no dictionary of a million lists is needed.
    divisible.sort(key=lambda image: rank(seed, _key(image, groups)))
    runs = [list(run) for _, run in groupby(divisible, key=lambda image: _key(image, groups))]
    divided = dict(_divide(runs, fractions=fractions))
    _fill_empty_splits(runs, divided, used=_used(fractions))
    splits.update(divided)
    return SplitPlan(splits, duplicates, leaks)


def _key(image: ManifestRow, groups: Mapping[str, str]) -> str:
    return groups.get(image.origin) or image.sha256


def _drop_copies(
    ordered: Sequence[ManifestRow], groups: Mapping[str, str], *, keep_duplicates: bool
) -> tuple[list[ManifestRow], dict[str, str], dict[str, str]]:
    """Leave out what would be in two splits, and second copies; test is looked at first."""
    first_of_content: dict[str, ManifestRow] = {}
    # Without groups every content is its own.
    first_of_group = {} if groups else first_of_content
    kept, duplicates, leaks, conflicts = [], {}, {}, []
    for image in ordered:
        first = first_of_content.setdefault(image.sha256, image)
        holder = first_of_group.setdefault(_key(image, groups), image)
        if first.label != image.label:
            conflicts.append(f"{first.origin} ({first.label}) = {image.origin} ({image.label})")
        elif holder.split != image.split:
            leaks[image.origin] = holder.origin
        elif first is not image and not keep_duplicates:
            duplicates[image.origin] = first.origin
        else:
            kept.append(image)
    if conflicts:
        listed = "; ".join(conflicts[:_MOST_LISTED_CONFLICTS])
        more = len(conflicts) - _MOST_LISTED_CONFLICTS
        raise LabelConflictError(
            "Expected every content under one label, found the same content under two: "
            f"{listed}{f'; and {more} more' if more > 0 else ''}. Remove the wrong one of each."
        )
    return kept, duplicates, leaks


def _divide(
    runs: Sequence[Sequence[ManifestRow]], *, fractions: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    """Give (origin, split) of each image; the runs are groups in the order of the shuffle."""
    used = _used(fractions)
    room = _targets(runs, fractions=fractions, used=used)
    # Large groups first, so that the single images can fill what is left exactly.
    for members in sorted((run for run in runs if len(run) > 1), key=len, reverse=True):
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
            yield image.origin, split
    for image, *others in runs:
        if not others:
            split = next((name for name in used if room[image.label][name] > 0), used[0])
            room[image.label][split] -= 1
            yield image.origin, split


def _used(fractions: Mapping[str, float]) -> list[str]:
    return [name for name in SPLITS if fractions.get(name, 0) > 0]


def _fill_empty_splits(
    runs: Sequence[Sequence[ManifestRow]], splits: dict[str, str], *, used: Sequence[str]
) -> None:
    """Give each split that lacks a class the smallest group that another split can spare.

    A content with many copies may take all the room that two splits have for its class.

    Raises:
        InputError: No split can spare one.
    """
    counts = Counter((image.label, splits[image.origin]) for run in runs for image in run)
    labels = sorted({label for label, _ in counts})
    empty = [(label, name) for label in labels for name in used if not counts[label, name]]
    for label, name in empty:
        for members in sorted(runs, key=lambda run: (len(run), min(map(_ORIGIN, run)))):
            before = splits[members[0].origin]
            taken = Counter(image.label for image in members)
            if taken[label] and all(counts[one, before] > n for one, n in taken.items()):
                for image in members:
                    splits[image.origin] = name
                    counts[image.label, before] -= 1
                    counts[image.label, name] += 1
                break
        else:
            raise InputError(
                f"Expected images of class {label} that can go to {name}, found none that do not "
                "belong together with those of other splits. Add images of it."
            )


def _targets(
    runs: Sequence[Sequence[ManifestRow]], *, fractions: Mapping[str, float], used: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Images each split is to get, by class and split."""
    counts = Counter(image.label for run in runs for image in run)
    contents = Counter(label for run in runs for label in {image.label for image in run})
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


def name_rows(rows: list[ManifestRow], name: Callable[[ManifestRow], str]) -> list[ManifestRow]:
    """Give each row the path `<split>/<label>/<name>`; no two names of a folder collide.

    Returns:
        New rows, sorted by path. The list that was given is emptied: millions of rows are not held
        twice.
    """
    folders: dict[tuple[str, str], list[ManifestRow]] = defaultdict(list)
    for row in sorted(rows, key=_ORIGIN):
        folders[row.split, row.label].append(row)
    rows.clear()
    named = []
    for split, label in list(folders):
        members = folders.pop((split, label))
        names = unique_names([name(row) for row in members])
        named += [
            replace(row, path=f"{split}/{label}/{unique}")
            for row, unique in zip(members, names, strict=True)
        ]
    return sorted(named, key=attrgetter("path"))


def near_duplicate_outcomes(
    rows: Sequence[ManifestRow], alike: Mapping[str, str]
) -> list[FileOutcome]:
    """Report near-duplicates among the images that are kept.

    Args:
        alike: The first image of each group, by the origins of all its images.
    """
    first: dict[str, ManifestRow] = {}
    outcomes = []
    for row in rows:
        if row.origin in alike:
            other = first.setdefault(alike[row.origin], row)
            if other is not row:
                detail = f"of {other.origin} (in {other.split}), itself in {row.split}"
                outcomes.append(FileOutcome(row.origin, Fate.NEAR_DUPLICATE, detail))
    return outcomes
