"""Folders of labelled images in, their names, labels and decoded pixels out; no TensorFlow here.

    images = list_labelled_images(Path("data/train"))
    decoded = decode_images(images, image_size=224, workers=2, max_memory_bytes=2 * 2**30)

Training and evaluation read their images here, through the decoder that serving uses.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from real_vs_ai.config import (
    DEBRIS_NAMES,
    MANIFEST_NAME,
    SEED,
    canonical_classes,
    canonical_split,
    ordered_class_names,
)
from real_vs_ai.images import ImageError, is_image_name, open_image, resize_image
from real_vs_ai.reporting import progress

# Enough images to keep a worker busy, few enough to keep its answer small.
_CHUNK_BYTES = 8 * 2**20
_CHUNK_IMAGES = 256
# Starting worker processes takes about as long as decoding this many small images.
_FEWEST_IMAGES_FOR_WORKERS = 400
# Raise it when the same file would decode to other pixels: caches on disk are then made anew.
_CACHE_VERSION = 1


@dataclass(frozen=True)
class LabelledImages:
    """Image files and their classes, sorted by path.

    Attributes:
        root: The folder that `paths` are relative to.
        paths: POSIX paths, relative to `root`.
        labels: Index into `class_names` of each image, shape (n_images,), int32.
        class_names: In the order of a model's outputs.
        sources: The data set each image came from, or "".
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

    def take(self, indices: Sequence[int] | np.ndarray) -> LabelledImages:
        """The images at these positions, in this order."""
        indices = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in indices),
            labels=self.labels[indices],
            sources=tuple(self.sources[i] for i in indices),
        )


@dataclass
class DecodedImages:
    """Decoded and resized images.

    Attributes:
        pixels: Shape (n_images, image_size, image_size, 3), uint8, RGB; may be a memory map.
        widths: Upright width of each original in pixels, shape (n_images,), int32.
        heights: Upright height of each original in pixels, shape (n_images,), int32.
        failures: (path, reason) of every file that could not be read.
        images: The files that could, in the order of `pixels`.
    """

    pixels: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    failures: tuple[tuple[str, str], ...]
    images: LabelledImages

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each image, shape (n_images,), int32."""
        return self.images.labels

    def take(self, indices: np.ndarray) -> DecodedImages:
        """The images at these positions, in this order."""
        return replace(
            self,
            pixels=self.pixels[indices],
            widths=self.widths[indices],
            heights=self.heights[indices],
            images=self.images.take(indices),
        )


def list_labelled_images(
    folder: Path,
    *,
    class_names: Sequence[str] | None = None,
    manifest: Path | None = None,
) -> LabelledImages:
    """List the images of a folder that holds one folder for each class.

    Args:
        folder: Holds the class folders; raw names (`REAL`, `fake_images`, …) are understood.
        class_names: The classes that must be there, in the order of the labels; None takes
            those that are there, sorted.
        manifest: A `manifest.csv` that names the images' sources; None looks in `folder` and
            beside it. Images it does not name take the `<source>__` prefix of their names.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no class folders.
        ValueError: A class has no images, there is only one class, or other classes are expected.
    """
    folder = Path(folder)
    raw_names = _class_folders(folder)
    renamed = canonical_classes(raw_names)
    found = ordered_class_names(renamed.values())
    names = tuple(class_names) if class_names is not None else found
    _check_classes(folder, found=found, expected=names)
    labelled = []
    for raw_name in raw_names:
        label = names.index(renamed[raw_name])
        labelled.extend((path, label) for path in _image_paths(folder, raw_name))
    labelled.sort()
    paths = tuple(path for path, _ in labelled)
    labels = np.array([label for _, label in labelled], dtype=np.int32)
    empty = [name for i, name in enumerate(names) if not np.any(labels == i)]
    if empty:
        raise ValueError(
            f"Expected images of every class in {folder}, found none of {', '.join(empty)}. "
            "Add images to the class folder, or remove it."
        )
    sources = _sources(paths, _manifest_sources(folder, manifest))
    return LabelledImages(folder, paths, labels, names, sources)


def decode_images(
    images: LabelledImages,
    *,
    image_size: int,
    workers: int,
    cache_dir: Path | None = None,
    max_memory_bytes: int,
) -> DecodedImages:
    """Decode and resize every image once, on all workers.

    Args:
        images: What to decode.
        image_size: Side of the square the images are resized to, in pixels.
        workers: Processes that decode.
        cache_dir: Where the pixels are kept for the next run; None keeps nothing.
        max_memory_bytes: More than this becomes a memory-mapped file (in `cache_dir`, otherwise
            in the system's temporary folder).

    Returns:
        The images that could be read; `failures` has the others with their reasons.

    Raises:
        OSError: The cache does not fit on the disk.
        MemoryError: A worker process was ended by the system.
    """
    nbytes = len(images) * image_size * image_size * 3
    if cache_dir is not None:
        stem = cache_dir / f"decoded-{fingerprint_images(images)[:16]}-{image_size}"
        cached = _read_cache(stem, images, memory_mapped=nbytes > max_memory_bytes)
        if cached is not None:
            return cached
        cache_dir.mkdir(parents=True, exist_ok=True)
    if nbytes <= max_memory_bytes:
        pixels = np.empty((len(images), image_size, image_size, 3), dtype=np.uint8)
    else:
        pixels = _new_memory_map(len(images), image_size, directory=cache_dir)
    decoded = _decode_into(pixels, images, image_size=image_size, workers=workers)
    if cache_dir is not None:
        _write_cache(stem, decoded)
    return decoded


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


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected a folder with one folder for each class at {folder}, found none. "
            "Run DataMerger.py first, or name another folder."
        )
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in DEBRIS_NAMES
    )
    if not names:
        raise FileNotFoundError(
            f"Expected one folder for each class in {folder} (Fake and Real), found no folders."
        )
    if all(canonical_split(name) for name in names):
        raise ValueError(
            f"Expected class folders in {folder}, found the splits {', '.join(names)}. "
            f"Name one of them: {folder / names[0]}."
        )
    return names


def _check_classes(folder: Path, *, found: Sequence[str], expected: Sequence[str]) -> None:
    if set(found) != set(expected):
        raise ValueError(
            f"Expected the classes {', '.join(expected)} in {folder}, found {', '.join(found)}. "
            "Every split, and the model, must have the same class folders."
        )
    if len(found) < 2:
        raise ValueError(
            f"Expected two classes or more in {folder}, found only {found[0]}. "
            "Add a folder with images of the other class."
        )


def _image_paths(folder: Path, class_folder: str) -> Iterable[str]:
    for directory, subfolders, names in os.walk(folder / class_folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        relative = Path(directory).relative_to(folder)
        for name in names:
            if is_image_name(name) and not name.startswith("."):
                yield (relative / name).as_posix()


def _manifest_sources(folder: Path, manifest: Path | None) -> dict[str, str]:
    """Sources by path relative to `folder`, or {} where there is no manifest."""
    candidates = [manifest] if manifest else [folder / MANIFEST_NAME, folder.parent / MANIFEST_NAME]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        if manifest:
            raise FileNotFoundError(f"Expected a manifest at {manifest}, found none.")
        return {}
    # A manifest beside the split folders counts its paths from there.
    prefix = "" if path.parent == folder else f"{folder.name}/"
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["path"].removeprefix(prefix): row.get("source") or ""
            for row in csv.DictReader(file)
            if row.get("path", "").startswith(prefix)
        }


def _sources(paths: Sequence[str], by_path: dict[str, str]) -> tuple[str, ...]:
    def source(path: str) -> str:
        if path in by_path:
            return by_path[path]
        before, separator, _ = path.rsplit("/", 1)[-1].partition("__")
        return before if separator else ""

    return tuple(map(source, paths))


def _decode_chunk(root: str, paths: Sequence[str], image_size: int) -> list[tuple | str]:
    """(pixels, width, height) of each image, or the reason why not; runs in a worker."""
    results: list[tuple | str] = []
    for path in paths:
        try:
            pixels = open_image(Path(root) / path)
        except (ImageError, OSError) as error:
            results.append(" ".join(str(error).split()))
        else:
            height, width = pixels.shape[:2]
            results.append((resize_image(pixels, image_size), width, height))
    return results


def _decode_into(
    pixels: np.ndarray, images: LabelledImages, *, image_size: int, workers: int
) -> DecodedImages:
    size = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // (image_size * image_size * 3)))
    chunks = [images.paths[i : i + size] for i in range(0, len(images), size)]
    if len(images) < _FEWEST_IMAGES_FOR_WORKERS:
        workers = 1
    parallel = Parallel(n_jobs=workers, return_as="generator")
    root = str(images.root.resolve())
    results = parallel(delayed(_decode_chunk)(root, chunk, image_size) for chunk in chunks)
    kept, sizes, failures = [], [], []
    position = 0
    try:
        for chunk in progress(results, description="Decoding", unit="batch", total=len(chunks)):
            for result in chunk:
                if isinstance(result, str):
                    failures.append((images.paths[position], result))
                else:
                    pixels[len(kept)] = result[0]
                    sizes.append(result[1:])
                    kept.append(position)
                position += 1
    except TerminatedWorkerError as error:
        raise MemoryError(
            f"A decoding process was ended by the system, most likely for lack of memory; "
            f"{workers} were running. Use fewer workers."
        ) from error
    widths, heights = np.array(sizes, dtype=np.int32).reshape(-1, 2).T
    return DecodedImages(
        pixels[: len(kept)], widths, heights, tuple(failures), images.take(kept)
    )  # fmt: skip


def _new_memory_map(n_images: int, image_size: int, *, directory: Path | None) -> np.ndarray:
    # A memory map on a full disk ends the process without a word: look before.
    where = directory or Path(tempfile.gettempdir())
    needed, free = n_images * image_size**2 * 3, shutil.disk_usage(where).free
    if needed > free:
        raise OSError(
            f"Expected {needed / 2**30:.1f} GB for decoded images in {where}, found "
            f"{free / 2**30:.1f} GB free. Name another --cache-dir, or allow more --memory."
        )
    # The name goes at once where the system allows it, so that no killed run leaves it behind.
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".decoding-", suffix=".tmp") as file:
        shape = (n_images, image_size, image_size, 3)
        # A file object: memory maps by name would need a second handle, which Windows refuses.
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def _write_cache(stem: Path, decoded: DecodedImages) -> None:
    """Store pixels, then the description that makes them count; each appears whole."""
    description = {
        "paths": decoded.images.paths,
        "widths": decoded.widths.tolist(),
        "heights": decoded.heights.tolist(),
        "failures": decoded.failures,
    }
    staging = stem.with_name(f".{stem.name}.{os.getpid()}.tmp")
    try:
        with staging.open("wb") as file:
            np.save(file, decoded.pixels)
        staging.replace(stem.with_suffix(".npy"))
        staging.write_text(json.dumps(description), encoding="utf-8")
        staging.replace(stem.with_suffix(".json"))
    finally:
        staging.unlink(missing_ok=True)


def _read_cache(stem: Path, images: LabelledImages, *, memory_mapped: bool) -> DecodedImages | None:
    try:
        description = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        pixels = np.load(stem.with_suffix(".npy"), mmap_mode="r" if memory_mapped else None)
    except (OSError, ValueError):
        return None
    position = {path: i for i, path in enumerate(images.paths)}
    kept = images.take([position[path] for path in description["paths"]])
    return DecodedImages(
        pixels,
        np.array(description["widths"], dtype=np.int32),
        np.array(description["heights"], dtype=np.int32),
        tuple((path, reason) for path, reason in description["failures"]),
        kept,
    )
