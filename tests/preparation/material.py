"""Make small data sets, and disturb a stage at any of its disk operations."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.core.config import SPLITS
from real_vs_ai.core.parallel import Pool
from real_vs_ai.preparation.archives import ExtractionSummary, extract_archives
from real_vs_ai.preparation.augmentation import (
    CopiesSummary,
    list_originals,
    plan_copies,
    write_copies,
)
from real_vs_ai.preparation.file_traits import PreparedImages
from real_vs_ai.preparation.layouts import find_layout
from real_vs_ai.preparation.merging import MergeOptions, merge_sources
from real_vs_ai.preparation.splitting import SplitOptions, split_sources

FOUR_TO_ONE = {"train": 0.8, "validation": 0.2}


def image_bytes(
    seed: int, *, size: tuple[int, int] = (8, 8), file_format: str = "JPEG", **options
) -> bytes:
    """An encoded image of noise; another seed is another content."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def smooth_image(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture with shapes large and small, which survive JPEG as those of photographs do."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            ),
            dtype=np.float64,
        )
        for n in (3, 6, 12)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def write_images(folder: Path, count: int, *, seed: int, **options) -> list[Path]:
    """`count` different images named 0.jpg, 1.jpg, …"""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(image_bytes(seed * 100_000 + i, **options))
    return paths


def make_flat(root: Path, *, count: int = 20, seed: int = 1, names=("GeneratedArt", "RealArt")):
    """A data set of flat class folders."""
    for i, name in enumerate(names):
        write_images(root / name, count, seed=seed * 10 + i)
    return root


def make_train_test(
    root: Path, *, train: int = 20, test: int = 6, seed: int = 5, names=("FAKE", "REAL")
) -> Path:
    """A data set of train and test folders."""
    for i, name in enumerate(names):
        write_images(root / "train" / name, train, seed=seed * 10 + i)
        write_images(root / "test" / name, test, seed=seed * 10 + 5 + i)
    return root


def make_merged(data_dir: Path, *, train: int = 6, others: int = 2) -> Path:
    """data/{train,validation,test}/{Fake,Real} as a user may have made it, without a manifest."""
    for i, split in enumerate(SPLITS):
        for j, name in enumerate(("Fake", "Real")):
            count = train if split == "train" else others
            write_images(data_dir / split / name, count, seed=300 + 10 * i + j)
    return data_dir


def split_options(**changes) -> SplitOptions:
    """The defaults, but for one worker, no report of confounds and the changes."""
    return SplitOptions(**{"workers": 1, "confounds": False} | changes)


def merge_options(**changes) -> MergeOptions:
    return MergeOptions(**{"workers": 1, "confounds": False} | changes)


def unpack(archive: Path, raw: Path, **changes) -> list[ExtractionSummary]:
    options = {"overwrite": False, "pool": Pool(1)} | changes
    return list(extract_archives([archive], output_dir=raw, **options))


def split(root: Path, output_dir: Path, **changes) -> PreparedImages:
    """Split one data set; `changes` are of the options."""
    options = split_options(**changes)
    return split_sources([find_layout(root)], output_dir=output_dir, options=options)[0]


def merge(folders: Sequence[Path], data: Path, **changes) -> PreparedImages:
    return merge_sources(folders, output_dir=data, options=merge_options(**changes))


def augment(data: Path, *, total=None, copies=None, seed=42, **changes) -> CopiesSummary:
    plan = plan_copies(list_originals(data / "train"), total=total, copies=copies, seed=seed)
    values = {"output_dir": data / "augmented_train", "overwrite": False, "pool": Pool(1)}
    return write_copies(plan, train_dir=data / "train", seed=seed, **values | changes)


def describe_worker(chunk) -> list[tuple[object, int]]:
    """(item, process that worked on it); for tests of where work runs."""
    return [(item, os.getpid()) for item in chunk]


def snapshot(folder: Path, *, hidden: bool = False) -> dict[str, str]:
    """SHA-256 of every file below a folder; the tools' own hidden files only if asked for."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and (hidden or not any(p.startswith(".") for p in path.relative_to(folder).parts))
    }


def run_disturbed(work: Callable[[], object], *, at: int, how: str) -> int:
    """Run `work` in a forked process that is disturbed at its n-th disk operation.

    Args:
        work: What to run.
        at: The number of the operation (opening, linking, renaming, removing, …); 0 disturbs
            nothing.
        how: "kill" (SIGKILL), "full" (every operation from there fails with a full disk) or
            "interrupt" (KeyboardInterrupt).

    Returns:
        How many operations the process counted before it ended; at least `at` if disturbed.
    """
    counter_read, counter_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(counter_read)
        _run_as_child(work, at=at, how=how, counter=counter_write)
    os.close(counter_write)
    os.waitpid(child, 0)
    with os.fdopen(counter_read, "rb") as file:
        return len(file.read())


_OPERATIONS = frozenset(
    {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.utime"}
)


def _run_as_child(work: Callable[[], object], *, at: int, how: str, counter: int) -> None:
    state = {"count": 0, "armed": True}

    def disturb(event: str, arguments: tuple) -> None:
        if event not in _OPERATIONS or not state["armed"]:
            return
        state["count"] += 1
        os.write(counter, b".")
        if how == "kill" and state["count"] == at:
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "interrupt" and state["count"] == at:
            raise KeyboardInterrupt
        elif how == "full" and at and state["count"] >= at and _takes_space(event, arguments):
            raise OSError(28, "No space left on device")

    code = 1
    try:
        with Path(os.devnull).open("w") as nothing:
            sys.stdout = sys.stderr = nothing
            sys.addaudithook(disturb)
            work()
            code = 0
    except BaseException:
        code = 1
    finally:
        state["armed"] = False
        os._exit(code)


def _takes_space(event: str, arguments: tuple) -> bool:
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        return bool(flags & (os.O_WRONLY | os.O_RDWR)) or (mode or "r")[0] in "wxa"
    return event in {"os.link", "os.mkdir"}
