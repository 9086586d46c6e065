"""List folders of labelled images with names, labels and sources, without opening an image.

`decoded_images.py` decodes them.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from real_vs_ai.core.config import (
    MANIFEST_NAME,
    SEED,
    canonical_classes,
    canonical_split,
    ordered_class_names,
)
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import list_files, list_folders, read_table
from real_vs_ai.core.images import is_image_name

# The second of five parts of all sources is 2/5.
_PART = re.compile(r"([1-9]\d*)/([1-9]\d*)")
# Raise it when the same file would decode to other pixels: caches on disk are then made again.
_CACHE_VERSION = 1


@dataclass(frozen=True)
class LabelledImages:
    """Image files and their classes, sorted by path.

    Attributes:
        paths: POSIX paths, relative to `root`.
        labels: Index into `class_names` of each image, shape (n_images,), int32.
        class_names: In the order of a model's outputs.
    """

    root: Path
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, map(int, counts), strict=True))

    @property
    def source_counts(self) -> dict[str, dict[str, int]]:
        """How many images of each class each source has; "unknown" stands for none named."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.class_names}
        for label, source in zip(self.labels.tolist(), self.sources, strict=True):
            counts, source = found[self.class_names[label]], source or "unknown"
            counts[source] = counts.get(source, 0) + 1
        return found

    def draw(self, most: int) -> np.ndarray:
        """Positions of at most about `most` images, evenly over the classes; seeded, in order."""
        if len(self) <= most:
            return np.arange(len(self))
        generator = np.random.default_rng(SEED)
        drawn = []
        for label in range(len(self.class_names)):
            members = np.flatnonzero(self.labels == label)
            wanted = max(1, round(most * len(members) / len(self)))
            drawn.append(generator.permutation(members)[:wanted])
        return np.sort(np.concatenate(drawn))

    def limited(self, most: int, *, seed: int) -> LabelledImages:
        """At most so many images of each class of a source, in the old order.

        A hash of seed and path draws them, so that other sources change nothing.
        """

        def place(position: int) -> bytes:
            text = f"{seed}\0{self.paths[position]}"
            return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

        members = defaultdict(list)
        for position, key in enumerate(zip(self.labels.tolist(), self.sources, strict=True)):
            members[key].append(position)
        drawn = (sorted(positions, key=place)[:most] for positions in members.values())
        return self.take(sorted(itertools.chain(*drawn)))

    def positions(self, sources: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the images of these sources, and of all others, int64.

        Args:
            sources: Names, or parts of all sources such as "2/5": the second of five, in the order
                of a hash of their names.

        Raises:
            InputError: No image is of one of these sources, or none is of another.
        """
        sources = [name for source in sources for name in self._named(source)]
        missing = set(sources) - set(self.sources)
        if missing:
            raise InputError(
                f"Expected images of {', '.join(sorted(missing))} in {self.root}, found those of "
                f"{', '.join(sorted(set(self.sources)))}."
            )
        of_these = np.isin(np.array(self.sources, dtype=object), list(sources))
        if of_these.all():
            raise InputError(f"Every image in {self.root} is of {', '.join(sources)}.")
        return np.flatnonzero(of_these), np.flatnonzero(~of_these)

    def _named(self, source: str) -> list[str]:
        """The sources that a name, or a part, means."""
        part = _PART.fullmatch(source)
        if not part:
            return [source]
        number, count = map(int, part.groups())
        ordered = sorted(set(self.sources), key=lambda name: hashlib.sha256(name.encode()).digest())
        return ordered[number - 1 :: count]

    def take(self, indices: Sequence[int] | np.ndarray) -> LabelledImages:
        """The images at these positions, in this order."""
        indices = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in indices),
            labels=self.labels[indices],
            sources=tuple(self.sources[i] for i in indices),
        )


def source_weights(labels: np.ndarray, sources: Sequence[str]) -> np.ndarray:
    """Weights that let every class count the same, and the square root of each source's size in it.

    A large source then teaches more than a small one, and does not drown it.

    Args:
        labels: The class of each image, shape (n_images,).
        sources: The data set each came from, shape (n_images,).

    Returns:
        Shape (n_images,), with a mean of 1.
    """
    keys = [f"{label} {source}" for label, source in zip(labels, sources, strict=True)]
    _, groups, counts = np.unique(keys, return_inverse=True, return_counts=True)
    weights, classes = (1 / np.sqrt(counts))[groups], np.unique(labels)
    for label in classes:
        weights[labels == label] /= weights[labels == label].sum()
    return weights * len(weights) / len(classes)


def list_labelled_images(
    folder: Path, *, class_names: Sequence[str] | None = None
) -> LabelledImages:
    """List the images of a folder that holds one folder for each class.

    A `manifest.csv` in the folder or next to it names their sources. Images that it does not name
    take the `<source>__` prefix of their names.

    Args:
        folder: Holds the class folders; raw names (`REAL`, `fake_images`, …) are understood.
        class_names: The classes that must be there, in the order of the labels; None takes
            those that are there, sorted.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no class folders.
        InputError: A class has no images, there is only one class, or other classes are expected.
    """
    folder = Path(folder)
    class_folders, names = _class_folders(folder, class_names)
    listed = manifest_column(folder, "source")
    labelled = []
    for raw_name, class_name in class_folders.items():
        label = names.index(class_name)
        files = list_files(folder / raw_name, links=True)
        labelled += [(f"{raw_name}/{path}", label) for path in files if is_image_name(path)]
    labelled.sort()
    paths = tuple(path for path, _ in labelled)
    labels = np.array([label for _, label in labelled], dtype=np.int32)
    empty = [name for i, name in enumerate(names) if not np.any(labels == i)]
    if empty:
        raise InputError(
            f"Expected images of every class in {folder}, found none of {', '.join(empty)}. "
            "Add images to the class folder, or remove it."
        )
    parted = (path.rpartition("/")[2].partition("__") for path in paths)
    prefixes = [before if mark else "" for before, mark, _ in parted]
    sources = tuple(map(listed.get, paths, prefixes))
    return LabelledImages(folder, paths, labels, names, sources)


def fingerprint_images(images: LabelledImages) -> str:
    """SHA-256 over the names, classes, sizes and times of the files; no file is opened.

    The same files copied elsewhere with their times kept have the same fingerprint.
    """
    digest = hashlib.sha256(f"{_CACHE_VERSION} {images.class_names}".encode())
    for path, label in zip(images.paths, images.labels, strict=True):
        try:
            status = (images.root / path).stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "unreadable"
        digest.update(f"{path}\0{label}\0{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _class_folders(
    folder: Path, class_names: Sequence[str] | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The class that each folder in this one holds, and the classes in the order of the labels."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected a folder with one folder for each class at {folder}, found none. "
            "Run DataMerger.py first, or name another folder."
        )
    raw_names = [path.name for path in list_folders(folder)]
    if not raw_names:
        raise FileNotFoundError(
            f"Expected one folder for each class in {folder} (Fake and Real), found no folders."
        )
    if all(canonical_split(name) for name in raw_names):
        raise InputError(
            f"Expected class folders in {folder}, found the splits {', '.join(raw_names)}. "
            f"Name one of them: {folder / raw_names[0]}."
        )
    classes = canonical_classes(raw_names)
    present = ordered_class_names(classes.values())
    expected = tuple(class_names) if class_names is not None else present
    if set(present) != set(expected):
        raise InputError(
            f"Expected the classes {', '.join(expected)} in {folder}, found {', '.join(present)}. "
            "Every split, and the model, must have the same class folders."
        )
    if len(present) < 2:
        raise InputError(
            f"Expected two classes or more in {folder}, found only {present[0]}. "
            "Add a folder with images of the other class."
        )
    return {name: classes[name] for name in raw_names}, expected


def manifest_column(folder: Path, column: str) -> dict[str, str]:
    """A column of the manifest in a folder or next to it, by path relative to the folder.

    Args:
        folder: Of a split, or of class folders; {} where there is no manifest.
        column: "source", "generator", …; "" where the manifest does not have it.
    """
    candidates = (folder / MANIFEST_NAME, folder.parent / MANIFEST_NAME)
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return {}
    # A manifest next to the split folders counts its paths from there.
    prefix = "" if path.parent == folder else f"{folder.name}/"
    return {
        image.removeprefix(prefix): value
        for image, value in read_table(path, ("path",), optional=(column,))
        if image.startswith(prefix)
    }
