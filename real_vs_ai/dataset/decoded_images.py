"""Decode labelled images for a model, in memory or memory-mapped; no TensorFlow here.

Training and evaluation read their pixels here, through the decoder and the crops of serving.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from real_vs_ai.core.config import SPLITS, canonical_split
from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.core.files import atomic_write, list_folders, write_text
from real_vs_ai.core.images import DecodedImage, ImageError, decode_image
from real_vs_ai.core.parallel import Pool, run_each
from real_vs_ai.core.reporting import progress
from real_vs_ai.dataset.labelled_images import LabelledImages, fingerprint_images
from real_vs_ai.dataset.views import ViewOptions, draw_views
from real_vs_ai.models.model_input import ModelInput

# Enough images to keep a worker busy, few enough to keep its answer small.
_CHUNK_BYTES = 8 * 2**20
_CHUNK_IMAGES = 256
# One batch of float32 pixels, for a network that computes features.
_BATCH_PIXELS = 2**19
# Raise it when the same image would give other crops or views: caches on disk are then made again.
_CROPS_VERSION = 2
# Starting worker processes takes about as long as resizing so many small images, or as cropping
# so many large ones.
_FEWEST_IMAGES_FOR_WORKERS = {"resize": 400, "crops": 24}


@dataclass(frozen=True)
class Preparation:
    """What is made of each image: the model's own input, or random views to learn from.

    Attributes:
        views: Random views instead of the model's own crops; None for those.
    """

    model_input: ModelInput
    views: ViewOptions | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of one image's pixels: views, height, width, channels."""
        views = self.views.count if self.views else self.model_input.views
        return (views, self.model_input.size, self.model_input.size, 3)

    def key(self) -> str:
        """For the names of cache files: another preparation gives other pixels."""
        if self.views is None and not self.model_input.is_crops:
            return str(self.model_input.size)
        text = f"{self.model_input} {self.views} {_CROPS_VERSION}"
        return f"{self.model_input.size}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def __call__(self, image: DecodedImage, name: str) -> np.ndarray:
        """One image's pixels, of `shape`."""
        if self.views is None:
            return self.model_input.prepare(image)
        return draw_views(image, self.model_input, self.views, name=name)


@dataclass
class DecodedImages:
    """Decoded images, resized or cropped for a model.

    Attributes:
        pixels: Shape (n_images, views, image_size, image_size, 3), uint8, RGB; may be a memory
            map. One view is the whole image, resized; several are crops of it.
        widths: Upright width of each original in pixels, shape (n_images,), int32.
        heights: Upright height of each original in pixels, shape (n_images,), int32.
        failures: (path, reason) of every file that could not be read.
        images: The files that could, in the order of `pixels`.
        cache: Path of the cached pixels without suffix; None where nothing was cached.
    """

    pixels: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    failures: tuple[tuple[str, str], ...]
    images: LabelledImages
    cache: Path | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray:
        """Class index of each image, shape (n_images,), int32."""
        return self.images.labels

    @property
    def views(self) -> int:
        """How many network inputs each image has."""
        return self.pixels.shape[1]

    @property
    def inputs(self) -> np.ndarray:
        """All network inputs, image by image: (n_images * views, image_size, image_size, 3)."""
        return self.pixels.reshape(-1, *self.pixels.shape[2:])

    def view_of_each(self, views: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """One network input of each of some images, shape (n, image_size, image_size, 3), uint8.

        Args:
            views: Which view of each, shape (n,); numbers beyond the views begin again at 0.
        """
        return self.pixels[indices, views % self.views]

    def take(self, indices: np.ndarray) -> DecodedImages:
        """The images at these positions, in this order."""
        return replace(
            self,
            pixels=self.pixels[indices],
            widths=self.widths[indices],
            heights=self.heights[indices],
            images=self.images.take(indices),
            cache=None,
        )


def decode_images(
    images: LabelledImages,
    *,
    model_input: ModelInput,
    workers: int,
    cache_dir: Path | None = None,
    max_memory_bytes: int,
    views: ViewOptions | None = None,
) -> DecodedImages:
    """Decode every image once, on all workers, and resize or crop it.

    Args:
        cache_dir: Where the pixels are kept for the next run; None keeps nothing.
        max_memory_bytes: More than this becomes a memory-mapped file (in `cache_dir`, otherwise
            in the system's temporary folder).
        views: Random views to learn from, instead of the model's own crops; None for those.

    Returns:
        The images that could be read; `failures` has the others with their reasons.

    Raises:
        OSError: The cache does not fit on the disk.
        MemoryError: A worker process was ended by the system.
    """
    preparation = Preparation(model_input, views)
    shape = (len(images), *preparation.shape)
    nbytes = math.prod(shape)
    if cache_dir is not None:
        stem = cache_dir / f"decoded-{fingerprint_images(images)[:16]}-{preparation.key()}"
        cached = _read_cache(
            stem, images, shape=preparation.shape, memory_mapped=nbytes > max_memory_bytes
        )
        if cached is not None:
            return replace(cached, cache=stem)
        cache_dir.mkdir(parents=True, exist_ok=True)
    if nbytes <= max_memory_bytes:
        pixels = np.empty(shape, dtype=np.uint8)
    else:
        pixels = _new_memory_map(shape, directory=cache_dir)
    decoded = _decode_into(pixels, images, preparation=preparation, workers=workers)
    if cache_dir is not None:
        _write_cache(stem, decoded)
        decoded = replace(decoded, cache=stem)
    return decoded


def _decode(path: str, root: str, preparation: Preparation) -> tuple[np.ndarray, int, int] | str:
    """(pixels, width, height) of an image, or the reason why not; runs in a worker."""
    try:
        image = decode_image(Path(root) / path)
    except (ImageError, OSError) as error:
        return one_line(error)
    return preparation(image, path), image.width, image.height


def _decode_into(
    pixels: np.ndarray, images: LabelledImages, *, preparation: Preparation, workers: int
) -> DecodedImages:
    results = run_each(
        _decode,
        images.paths,
        str(images.root.resolve()),
        preparation,
        size=max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // math.prod(preparation.shape))),
        pool=Pool(workers),
        description="Decoding",
        unit="image",
        fewest=_FEWEST_IMAGES_FOR_WORKERS[preparation.model_input.kind],
    )
    kept: list[int] = []
    sizes: list[tuple[int, int]] = []
    failures: list[tuple[str, str]] = []
    for position, result in enumerate(results):
        if isinstance(result, str):
            failures.append((images.paths[position], result))
        else:
            pixels[len(kept)] = result[0]
            sizes.append(result[1:])
            kept.append(position)
    widths, heights = np.array(sizes, dtype=np.int32).reshape(-1, 2).T
    return DecodedImages(pixels[: len(kept)], widths, heights, tuple(failures), images.take(kept))


def _new_memory_map(shape: tuple[int, ...], *, directory: Path | None) -> np.ndarray:
    # A memory map on a full disk ends the process without a word: look before.
    where = directory or Path(tempfile.gettempdir())
    needed, free = math.prod(shape), shutil.disk_usage(where).free
    if needed > free:
        raise OSError(
            f"Expected {needed / 2**30:.1f} GB for decoded images in {where}, found "
            f"{free / 2**30:.1f} GB free. Set another cache_dir, or allow more --memory."
        )
    # The name goes at once where the system allows it, so that no killed run leaves it behind.
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".decoding-", suffix=".tmp") as file:
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
    with atomic_write(stem.with_suffix(".npy")) as staging:
        np.save(staging, decoded.pixels)
    write_text(stem.with_suffix(".json"), json.dumps(description))


def _read_cache(
    stem: Path, images: LabelledImages, *, shape: tuple[int, ...], memory_mapped: bool
) -> DecodedImages | None:
    try:
        description = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        pixels = np.load(stem.with_suffix(".npy"), mmap_mode="r" if memory_mapped else None)
        pixels = pixels.reshape(len(description["paths"]), *shape)
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


def find_splits(folder: Path) -> dict[str, Path]:
    """The split folders in `folder`; a folder of class folders is taken as test images.

    Raises:
        FileNotFoundError: There is no such folder, or it is empty.
        InputError: Two folders mean the same split, or there are training images only.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected a folder of labelled images at {folder}, found none. "
            "Run DataMerger.py first, or name another folder with --data."
        )
    names = [path.name for path in list_folders(folder)]
    meant = {name: split for name in names if (split := canonical_split(name))}
    found: dict[str, Path] = {}
    for split in SPLITS:
        folders = [folder / name for name, meaning in meant.items() if meaning == split]
        if len(folders) > 1:
            raise InputError(
                f"Expected one {split} folder in {folder}, found "
                f"{', '.join(path.name for path in folders)}. Name one of them with --data."
            )
        if folders:
            found[split] = folders[0]
    if not found:
        return {"test": folder}
    if set(found) == {"train"}:
        raise InputError(
            f"Expected test or validation images in {folder}, found only {found['train'].name}. "
            "Training images flatter a model; to see that, name the folder itself with --data."
        )
    return found


def store_features(
    splits: Mapping[str, DecodedImages],
    compute: Callable[[np.ndarray], np.ndarray],
    *,
    width: int,
    key: str,
    say: Callable[[str], None],
) -> dict[str, DecodedImages]:
    """The splits with features in place of their pixels, for all their views.

    A frozen backbone computes them once; they are kept beside the decoded images. A head then
    learns hundreds of epochs from them in minutes.

    Args:
        compute: Takes inputs of shape (n, side, side, 3), float32; returns (n, width).
        width: How many features an input has.
        key: Names the network; another one computes other features.

    Returns:
        "train" and "validation", with features of shape (n_images, views, width), float32.
    """
    found = {}
    for split in ("train", "validation"):
        images = splits[split]
        path = images.cache and images.cache.with_name(f"{images.cache.name}-features-{key}.npy")
        try:
            # Those that an earlier run kept.
            features = np.load(path) if path else None
        except (OSError, ValueError):
            features = None
        if features is None or features.shape != (len(images), images.views, width):
            say(f"Computing the features of {len(images.inputs):,} {split} inputs once ...")
            features = _compute_features(images, compute, split=split)
            if path is not None:
                with atomic_write(path) as staging:
                    np.save(staging, features)
        found[split] = replace(images, pixels=features)
    return found


def _compute_features(
    images: DecodedImages, compute: Callable[[np.ndarray], np.ndarray], *, split: str
) -> np.ndarray:
    inputs = images.inputs
    step = max(1, _BATCH_PIXELS // math.prod(inputs.shape[1:3]))
    starts = range(0, len(inputs), step)
    parts = [
        np.float32(compute(np.asarray(inputs[start : start + step], dtype=np.float32)))
        for start in progress(starts, description=f"Features of {split}", unit="batch")
    ]
    return np.concatenate(parts).reshape(len(images), images.views, -1)
