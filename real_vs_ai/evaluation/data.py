"""Find the labelled splits in a folder and decode them for a model.

folders = find_splits(Path("data"))                    # {"train": …, "validation": …, "test": …}
decoded = decode_splits(folders, metadata=metadata, workers=2, max_memory_bytes=4 * 2**30)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from real_vs_ai.config import SPLITS, canonical_split
from real_vs_ai.dataset.decoded_images import DecodedImages, decode_images
from real_vs_ai.dataset.labelled_images import LabelledImages, list_labelled_images
from real_vs_ai.errors import InputError
from real_vs_ai.files import list_folders
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.model_input import ModelInput


def find_splits(folder: Path) -> dict[str, Path]:
    """The split folders in `folder`; a folder of class folders is taken as test images.

    Raises:
        FileNotFoundError: There is no such folder, or it is empty.
        ValueError: Two folders mean the same split, or there are training images only.
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


def decode_splits(
    folders: Mapping[str, Path], *, metadata: ModelMetadata, workers: int, max_memory_bytes: int
) -> dict[str, DecodedImages]:
    """Decode every split but train, whose images are only counted."""
    listed = {
        split: list_labelled_images(path, class_names=metadata.class_names)
        for split, path in folders.items()
    }
    return {
        split: (
            _not_decoded(images, model_input=metadata.model_input)
            if split == "train"
            else decode_images(
                images,
                model_input=metadata.model_input,
                workers=workers,
                max_memory_bytes=max_memory_bytes,
            )
        )
        for split, images in listed.items()
    }


def _not_decoded(images: LabelledImages, *, model_input: ModelInput) -> DecodedImages:
    size = model_input.size
    return DecodedImages(
        pixels=np.empty((0, model_input.views, size, size, 3), dtype=np.uint8),
        widths=np.empty(0, dtype=np.int32),
        heights=np.empty(0, dtype=np.int32),
        failures=(),
        images=images,
    )
