"""Inspect files by their content: hash, size, format, likeness, and why one cannot be used.

Pictures that show nothing, or little, are recognised here too.
"""

from __future__ import annotations

import hashlib
import posixpath
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.files import hash_file
from real_vs_ai.images import (
    FORMATS,
    ImageError,
    ImageTooLargeError,
    decode_image,
    is_image_name,
    read_image_file,
)
from real_vs_ai.out_of_distribution.pixel_classifier import are_plain
from real_vs_ai.parallel import Pool, run_each
from real_vs_ai.preparation.copies import decode_plain_jpeg, plain_jpeg_settings


@dataclass(frozen=True, slots=True)
class InspectedFile:
    """One file as it is; its size is upright, in pixels, 0 where it is not known.

    Attributes:
        path: POSIX path relative to the data set's folder.
        sha256: Of its content; "" if it cannot be read.
        format: Real format, whatever the name says, or "".
        note: What a person may want to know of a usable file, or "".
        perceptual_hash: pHash of its pixels where it was asked for, otherwise 0.
    """

    path: str
    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    problem: str = ""
    note: str = ""
    perceptual_hash: int = 0

    @property
    def is_image(self) -> bool:
        return not self.problem

    @property
    def claims_to_be_image(self) -> bool:
        return is_image_name(self.path)


def inspect_files(
    paths: Sequence[str], *, root: Path, perceptual: bool, pool: Pool
) -> list[InspectedFile]:
    """Inspect files on all workers; every image is decoded.

    Args:
        perceptual: Compute each image's pHash as well.

    Returns:
        One for each path, in order.
    """
    place, options = str(root.resolve()), {"description": "Verifying", "unit": "file"}
    return list(run_each(_inspect, paths, place, perceptual, size=256, pool=pool, **options))


def _inspect(path: str, root: str, perceptual: bool) -> InspectedFile:
    try:
        data = read_image_file(f"{root}/{path}")
    except ImageTooLargeError as error:
        return InspectedFile(path, hash_file(Path(root, path)), problem=str(error))
    except OSError as error:
        return InspectedFile(path, problem=f"cannot be read: {error.strerror or error}")
    sha256 = hashlib.sha256(data).hexdigest()
    ordinary = None if perceptual else plain_jpeg_settings(data)
    if ordinary and decode_plain_jpeg(data) is not None:
        note = _note(path, "JPEG")
        return InspectedFile(path, sha256, ordinary.width, ordinary.height, "JPEG", note=note)
    try:
        image = decode_image(data)
    except ImageError as error:
        return InspectedFile(path, sha256, problem=str(error))
    hashed = perceptual_hash(image.pixels) if perceptual else 0
    # A million files share a handful of formats; interned, each is held once.
    size, name = (image.width, image.height), sys.intern(image.format)
    note = _note(path, name)
    return InspectedFile(path, sha256, *size, name, note=note, perceptual_hash=hashed)


def _note(path: str, file_format: str) -> str:
    suffix = posixpath.splitext(path)[1]
    if file_format not in FORMATS or suffix.lower() in FORMATS[file_format].extensions:
        return ""
    return f"the name says {suffix or 'nothing'}, the content is {file_format}"


MAX_BITS = 3
_BANDS = MAX_BITS + 1
_BAND_BITS = 64 // _BANDS


def perceptual_hash(pixels: np.ndarray) -> int:
    """The pHash of an image, shape (height, width, 3), uint8; 0 to 2**64 - 1."""
    # Imported here: it brings SciPy, which a run without near-duplicates need not load.
    import imagehash

    bits = imagehash.phash(Image.fromarray(pixels)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_near_duplicates(files: Sequence[InspectedFile]) -> dict[str, str]:
    """The first image of each group of near-duplicates, by the paths of all its images."""
    images = [file for file in files if file.is_image]
    groups = group_near_duplicates([file.perceptual_hash for file in images])
    return {images[index].path: images[first].path for index, first in groups.items()}


def group_near_duplicates(hashes: Sequence[int]) -> dict[int, int]:
    """Group images whose hashes are within 3 bits, also by way of others between them.

    Args:
        hashes: pHash of each image.

    Returns:
        For each image that is in a group of two or more: the index of the group's first image.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unique, inverse = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    if not len(unique):
        return {}
    left, right = _near_pairs(unique)
    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(len(unique),) * 2)
    _, component = connected_components(graph, directed=False)
    component = component[inverse]
    _, first, counts = np.unique(component, return_index=True, return_counts=True)
    return {int(i): int(first[component[i]]) for i in np.flatnonzero(counts[component] > 1)}


def _near_pairs(unique: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs of different hashes within MAX_BITS of each other."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for band in range(_BANDS):
        shift = np.uint64(band * _BAND_BITS)
        keys = (unique >> shift) & np.uint64(2**_BAND_BITS - 1)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        # Hashes with one key lie together: compare each with the next, the one after, and so on.
        distance = 1
        active = np.arange(len(keys) - 1)
        while len(active):
            active = active[active + distance < len(keys)]
            active = active[keys[active] == keys[active + distance]]
            a, b = order[active], order[active + distance]
            near = np.bitwise_count(unique[a] ^ unique[b]) <= MAX_BITS
            found.append((a[near], b[near]))
            distance += 1
    if not found:
        return np.empty(0, dtype=int), np.empty(0, dtype=int)
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


# A picture whose brightest and darkest pixels differ by less shows nothing.
_LEAST_CONTRAST = 12
_LONGEST_SIDE = 2048
# Enough for what follows; a camera's photograph takes a tenth of the time.
_SHRUNK_SIDE = 1024


def shrink(image: Image.Image) -> Image.Image:
    """A picture by a whole factor smaller, with a longer side of at most 1,024 pixels."""
    return image.reduce(-(-max(image.size) // _SHRUNK_SIDE))


def is_blank(image: Image.Image) -> bool:
    """Whether a picture shows nothing."""
    small = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    darkest, brightest = small.getextrema()
    return brightest - darkest < _LEAST_CONTRAST


def is_plain(image: Image.Image) -> bool:
    """Whether most of a picture is flat or of one colour, as posters and diagrams are.

    Such pictures are nearly all generated ones here, so a model would learn the layout.
    """
    if max(image.size) > _LONGEST_SIDE:
        image = image.copy()
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BOX)
    return are_plain(np.asarray(image)[None])
