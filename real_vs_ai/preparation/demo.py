"""Make the demo data: two small archives in the layouts of the real data sets.

The photographs come from installed packages (scikit-image, scikit-learn, matplotlib). Real images
are crops of them at many scales. Fake images are other crops, reduced and then enlarged by strided
transposed convolutions with uneven kernels, as learned ones are. That leaves the traces of
generators' up-sampling (Odena et al. 2016, Durall et al. 2020): a checkerboard, which is a peak in
the spectrum, and missing fine detail. They are stand-ins: a model trained on them detects these
traces and nothing else.

Scenes, sizes, file format and quality are drawn alike for both classes, so that none of them gives
the class away. On purpose, some files are in the archives twice, some are both in train/ and
in test/, and one is broken.
"""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from real_vs_ai.core.files import write_bytes
from real_vs_ai.core.images import open_image
from real_vs_ai.core.reporting import progress
from real_vs_ai.preparation.image_files import encode

FLAT_NAME = "demo-flat.zip"
SPLIT_NAME = "demo-train-test.zip"

# All are photographs under free licences, as the packages' own notices say.
_PHOTOGRAPHS = {
    "skimage.data": "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png "
    "gravel.png hubble_deep_field.jpg motorcycle_left.png rocket.jpg",
    "sklearn.datasets.images": "china.jpg flower.jpg",
    "matplotlib": "mpl-data/sample_data/grace_hopper.jpg",
}
# These appear in test/ of the second archive only: scenes the model never met.
_HELD_BACK = frozenset({"china.jpg", "chelsea.png", "gravel.png"})
_JPEG_QUALITY = 90
_SMALLEST_CROP = 48
_DUPLICATES = 6
# A fixed date, so that the same seed gives the same bytes.
_ZIP_DATE = (2026, 1, 1, 0, 0, 0)


def make_demo_archives(
    output_dir: Path, *, seed: int, flat_images: int, train_images: int, test_images: int
) -> None:
    """Write both archives; an existing one is kept when it holds the same bytes.

    The first has class folders only: `real_images/` and `fake_images/` (for DataSplitD1.py). The
    second has `train/` and `test/`, with `REAL/` and `FAKE/` in each (for DataSplitD2.py).

    Args:
        seed: The same seed gives the same bytes with the same versions of the packages.
        flat_images: Of each class in the flat archive; the others are of each class in the folders
            of the other archive.

    Raises:
        FileExistsError: An archive already exists with other content.
    """
    photographs = load_photographs()
    known = {name: pixels for name, pixels in photographs.items() if name not in _HELD_BACK}
    held_back = {name: pixels for name, pixels in photographs.items() if name in _HELD_BACK}
    random = np.random.default_rng(seed)

    flat = _class_folders(known, flat_images, ("real_images", "fake_images"), (40, 64), random)
    train = _class_folders(known, train_images, ("train/REAL", "train/FAKE"), (32, 32), random)
    test = _class_folders(held_back, test_images, ("test/REAL", "test/FAKE"), (32, 32), random)
    flat |= _second_copies(flat, "real_images/", "real_images/copy-of-")
    train |= _second_copies(train, "train/FAKE/", "train/FAKE/copy-of-")
    test |= _second_copies(train, "train/REAL/", "test/REAL/also-in-")
    whole = next(iter(flat.values()))
    flat["real_images/broken.jpg"] = whole[: len(whole) // 2]

    output_dir.mkdir(parents=True, exist_ok=True)
    _write_archive(output_dir / FLAT_NAME, flat)
    _write_archive(output_dir / SPLIT_NAME, train | test)


def load_photographs() -> dict[str, np.ndarray]:
    """The photographs by file name, each of shape (height, width, 3), uint8.

    Raises:
        FileNotFoundError: An installed package no longer ships one of them.
    """
    photographs = {}
    listed = ((package, file) for package, files in _PHOTOGRAPHS.items() for file in files.split())
    for package, file in listed:
        try:
            data = resources.files(package).joinpath(file).read_bytes()
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(
                f"Expected the photograph {file} in the installed package {package}, found none. "
                "Install the versions that requirements.txt names."
            ) from error
        photographs[Path(file).name] = open_image(data)
    return photographs


def random_crop(pixels: np.ndarray, *, side: int, random: np.random.Generator) -> np.ndarray:
    """A square crop at a random place and scale, reduced to `side` pixels, maybe mirrored.

    Args:
        pixels: Shape (height, width, 3), uint8.
    """
    height, width = pixels.shape[:2]
    largest = min(height, width)
    smallest = min(max(_SMALLEST_CROP, side), largest)
    # The logarithm is uniform: close-ups come as often as wide views.
    crop_side = round(np.exp(random.uniform(np.log(smallest), np.log(largest))))
    top = int(random.integers(0, height - crop_side + 1))
    left = int(random.integers(0, width - crop_side + 1))
    crop = Image.fromarray(pixels[top : top + crop_side, left : left + crop_side])
    if random.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(crop.resize((side, side), Image.Resampling.LANCZOS))


def resynthesise(pixels: np.ndarray, *, random: np.random.Generator) -> np.ndarray:
    """Reduce an image to a quarter of its side, then double it twice by uneven kernels.

    Args:
        pixels: Shape (height, width, 3), uint8, height and width multiples of 4.
        random: Draws both kernels: bilinear weights, each off by 25 % (standard deviation).

    Returns:
        Same shape, uint8: the same scene with checkerboards of periods 2 and 4 and less detail.
    """
    height, width = pixels.shape[:2]
    reduced = cv2.resize(pixels, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    enlarged = reduced.astype(np.float32)
    for _ in range(2):
        enlarged = _uneven_transposed_convolution(enlarged, random=random)
    return np.clip(np.rint(enlarged), 0, 255).astype(np.uint8)


def _uneven_transposed_convolution(
    pixels: np.ndarray, *, random: np.random.Generator
) -> np.ndarray:
    height, width = pixels.shape[:2]
    spread = np.zeros((2 * height, 2 * width, 3), np.float32)
    spread[::2, ::2] = pixels
    bilinear = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16.0
    kernel = bilinear * random.normal(1.0, 0.25, bilinear.shape)
    # The brightness of the whole stays: only its four interleaved grids differ from each other.
    kernel *= 4.0 / kernel.sum()
    return cv2.filter2D(spread, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def _class_folders(
    photographs: dict[str, np.ndarray],
    images_per_class: int,
    folders: tuple[str, str],
    sides: tuple[int, int],
    random: np.random.Generator,
) -> dict[str, bytes]:
    """Encoded images of both classes by their path in the archive."""
    names = sorted(photographs)
    files = {}
    for number in progress(range(images_per_class), description=folders[0], unit="pair"):
        # Both classes get the same photographs, sizes and quality: only the traces differ.
        photograph = photographs[names[number % len(names)]]
        side = 4 * int(random.integers(sides[0] // 4, sides[1] // 4 + 1))
        real = random_crop(photograph, side=side, random=random)
        fake = resynthesise(random_crop(photograph, side=side, random=random), random=random)
        for folder, pixels in zip(folders, (real, fake), strict=True):
            image = Image.fromarray(pixels)
            data = encode(image, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
            files[f"{folder}/{number:04}.jpg"] = data
    return files


def _second_copies(files: dict[str, bytes], prefix: str, copy_prefix: str) -> dict[str, bytes]:
    originals = [path for path in files if path.startswith(prefix)][:_DUPLICATES]
    return {copy_prefix + path.rpartition("/")[2]: files[path] for path in originals}


def _write_archive(path: Path, files: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), files[name])
    data = buffer.getvalue()
    if path.exists():
        if path.read_bytes() == data:
            return
        raise FileExistsError(f"{path} already exists with other content. Move it away first.")
    write_bytes(path, data)
