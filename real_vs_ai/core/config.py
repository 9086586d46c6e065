"""Define the names and defaults that several parts of the project share.

Paths are relative to the folder a script is started in, as its arguments are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

# Index 0 is Fake and 1 is Real, as the alphabet and the field's folders have it.
CLASS_NAMES = ("Fake", "Real")
# Every binary metric counts this class as positive: a detector is judged by the fakes it finds.
POSITIVE_CLASS = "Fake"
UNCERTAIN = "Uncertain"

SPLITS = ("train", "validation", "test")
SEED = 42

# Raw folder names that mean the same class; compared without case, spaces, "_" and "-".
RAW_CLASS_NAMES = {
    "Fake": "fake, fakes, fake image, fake images, generated, generated art, generated images, ai, "
    "ai art, ai art data, ai images, ai generated, ai generated images, synthetic, "
    "synthetic images",
    "Real": "real, reals, real image, real images, real art, real art data, photo, photos, "
    "photographs, human, human art, nature, authentic",
}
# Raw folder names that mean the same split, compared in the same way.
RAW_SPLIT_NAMES = {
    "train": "train, training, train data, training data",
    "validation": "validation, valid, val, validation data",
    "test": "test, testing, test data, testing data",
}

DATA_DIR = Path("data")
ARCHIVES_DIR = DATA_DIR / "archives"
RAW_DIR = DATA_DIR / "raw"
REPOSITORIES_DIR = DATA_DIR / "repositories"
SPLIT_DIR = DATA_DIR / "split"
AUGMENTED_DIR = DATA_DIR / "augmented_train"
MODELS_DIR = Path("models")
RELEASED_MODEL_DIR = MODELS_DIR / "released"
# The released model that came with the code, wherever the script was started.
PACKAGED_RELEASED_MODEL_DIR = Path(__file__).resolve().parents[2] / RELEASED_MODEL_DIR

MANIFEST_NAME = "manifest.csv"
MANIFEST_COLUMNS = (
    *("path", "sha256", "label", "split", "source"),
    *("width", "height", "format", "origin"),
)
# They follow where an image comes from a collection; other manifests have no such columns.
COLLECTION_COLUMNS = ("generator", "collection", "group")
# It follows where some images are augmented copies: of the original's content.
COPY_COLUMNS = ("origin_sha256",)
# In the names of augmented copies, before a number.
AUGMENTED_MARK = "__augmented"

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
# Files that macOS and Windows leave in folders and archives; never data.
JUNK_NAMES = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})

# Pillow warns of a decompression bomb above the same number of pixels.
MAX_IMAGE_PIXELS = 89_478_485
MAX_IMAGE_BYTES = 200 * 2**20

# Side of the square the images are resized to for the network, in pixels.
IMAGE_SIZE = 224


def _folded(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")


def _by_folded_name(names: Mapping[str, str]) -> dict[str, str]:
    return {_folded(alias): name for name, text in names.items() for alias in text.split(",")}


_CLASS_BY_FOLDED_NAME = _by_folded_name(RAW_CLASS_NAMES)
_SPLIT_BY_FOLDED_NAME = _by_folded_name(RAW_SPLIT_NAMES)


def canonical_split(folder_name: str) -> str | None:
    """The split that a raw folder's name means ("TRAIN" → "train"), or None."""
    return _SPLIT_BY_FOLDED_NAME.get(_folded(folder_name))


def canonical_classes(folder_names: Iterable[str]) -> dict[str, str]:
    """Map raw class folders to class names.

    When every folder is known as Fake or Real, they become those; any other set (say benign,
    malignant, normal) keeps its own names.

    Returns:
        One entry for each folder, sorted by folder name: {"GeneratedArt": "Fake", …}.
    """
    names = sorted(set(folder_names))
    known = {name: _CLASS_BY_FOLDED_NAME.get(_folded(name)) for name in names}
    if names and all(known.values()):
        return {name: str(value) for name, value in known.items()}
    return {name: name for name in names}


def ordered_class_names(class_names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of the model's outputs: sorted, so that Fake is 0 and Real is 1."""
    return tuple(sorted(set(class_names)))


def positive_index(class_names: Sequence[str]) -> int | None:
    """The index of Fake where the classes are Fake and one other, otherwise None."""
    two = len(class_names) == 2 and POSITIVE_CLASS in class_names
    return class_names.index(POSITIVE_CLASS) if two else None


def is_augmented_name(path: str) -> bool:
    """Whether a file's name is one that augmentation gives its copies."""
    # Most names are recognised by this alone, at a tenth of the time.
    if AUGMENTED_MARK not in path:
        return False
    _, mark, number = PurePosixPath(path).stem.rpartition(AUGMENTED_MARK)
    return bool(mark) and number.isdecimal()
