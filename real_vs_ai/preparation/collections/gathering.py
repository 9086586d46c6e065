"""Gather the pictures of a collection: label its files, look at them, and write what is taken.

A file that is not cut keeps its bytes. A tile keeps its sheet's format, so that cutting adds no
sign of its own: JPEG with the sheet's own quantisation tables (seams that lie on the borders of
the codec's blocks change next to nothing), WebP and everything else without loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from real_vs_ai.core.config import REPOSITORIES_DIR
from real_vs_ai.core.images import (
    DecodedImage,
    ImageError,
    decode_image,
    file_extension,
    is_image_name,
)
from real_vs_ai.core.options import Options, option, shared, whole_number
from real_vs_ai.core.parallel import Pool
from real_vs_ai.out_of_distribution.pixel_classifier import are_plain
from real_vs_ai.preparation.collections.collection_list import (
    CLASS_FOLDERS,
    KEPT_OUT,
    NAME,
    PATTERN,
    Collection,
    CollectionError,
    ImageRow,
    is_kept_out,
)
from real_vs_ai.preparation.collections.evidence import (
    MISSING,
    FoundFile,
    Labelled,
    label_files,
    left_out,
    makes_pictures,
    read_evidence,
)
from real_vs_ai.preparation.collections.selection import (
    Known,
    PixelReview,
    limit_sources,
    take,
    take_all,
)
from real_vs_ai.preparation.collections.sources import PACKAGE, README, Files
from real_vs_ai.preparation.collections.tool_names import TOOLS, tool_of
from real_vs_ai.preparation.image_files import encode, encoder_like
from real_vs_ai.preparation.likeness import perceptual_hash
from real_vs_ai.preparation.manifest import Fate, FileOutcome, rank, safe_name, write_new_file

NO_TOOL = "no tool's name"
HELD_OUT = "its tool is held out for the test"
NO_PACKAGE = "its name tells nothing in a repository without the tool's package"
# A stem is for people only; the id behind it tells files apart.
_STEM_BYTES = 80
# A picture whose brightest and darkest pixels differ by less shows nothing.
_LEAST_CONTRAST = 12
_LONGEST_SIDE = 2048
# Enough for what follows; a camera's photograph takes a tenth of the time.
_SHRUNK_SIDE = 1024


@dataclass(frozen=True, kw_only=True)
class CollectOptions(Options):
    """How collections are collected."""

    repositories_dir: Path = REPOSITORIES_DIR
    git_dirs: Path | None = option(
        "use the git directories in this folder (owner+name.git) and fetch nothing",
        metavar="DIR",
        flags=("--from",),
        dest="git_dirs",
        type=Path,
    )
    server: str = option("server of the repositories", "https://github.com")
    min_side: int = option(
        "leave out images smaller than this, in pixels", 200, type=whole_number(1)
    )
    source_limit: int = option(
        "with labels by evidence: most pictures of one generator or camera of a repository or "
        "folder, by name of a repository, where the list names no limit",
        20,
        metavar="N",
        type=whole_number(1),
    )
    kept_out: tuple[Path, ...] = option(
        "leave out the repositories and files whose SHA-256 begins as a line of this file does",
        (),
        metavar="FILE",
        nargs="+",
        type=Path,
    )
    overwrite: bool = shared("--overwrite")
    workers: int = shared("--workers")


def wanted_keys(collection: Collection, files: Files) -> list[str]:
    """The keys of the files that gathering will read."""
    candidates, _ = _find_files(collection, files)
    if collection.rule != PATTERN:
        # What the repository says of itself tells whether it makes pictures, and with which tool.
        return files.notes_keys() + [file.key for file in candidates]
    return [entry.key for entry in _label_listed(collection, candidates)[0]]


def gather(
    collection: Collection, files: Files, folder: Path, *, known: Known, options: CollectOptions
) -> tuple[list[ImageRow], list[FileOutcome]]:
    """Write the pictures to take into class folders; gives their rows, and what was left out.

    Args:
        known: What other collections hold already.

    Raises:
        CollectionError: Nothing matches the list's pattern.
    """
    candidates, excluded = _find_files(collection, files)
    limit, together = collection.limit or options.source_limit, collection.rule == NAME
    if collection.rule == PATTERN:
        entries, outcomes = _label_listed(collection, candidates)
    else:
        labelled, outcomes = _label_by_evidence(collection, files, candidates, options)
        entries, beyond = limit_sources(
            labelled, limit=limit, role=collection.role, known=known, together=together
        )
        outcomes += beyond
    for label in sorted({entry.label for entry in entries}):
        (folder / CLASS_FOLDERS[label]).mkdir()
    given = (str(folder.resolve()), collection, options)
    working = {"description": f"Collecting {collection.name}", "unit": "file", "fewest": 4}
    working["pool"] = Pool(options.workers)
    reviews = list(files.read_each(_write_images, entries, *given, **working))
    if collection.rule == PATTERN:
        taken, unusable = take_all(entries, reviews)
    else:
        taken, unusable = take(entries, reviews, limit=limit, known=known, together=together)
    rows = [
        ImageRow(
            path,
            entry.file.path,
            entry.group,
            entry.made_by,
            "yes" if plain else "",
            entry.evidence,
            collection.licence,
            f"{hashed:016x}",
        )
        for entry, review in taken
        for path, plain, hashed in review.images
    ]
    written = {path for review in reviews for path, *_ in review.images}
    for path in written - {row.path for row in rows}:
        (folder / path).unlink()
    return rows, excluded + outcomes + unusable


def _find_files(collection: Collection, files: Files) -> tuple[list[FoundFile], list[FileOutcome]]:
    """The files that the list means, and those that it excludes."""
    keys, by_pattern = dict(files.entries()), collection.rule == PATTERN
    named, excluded = collection.select(p for p in keys if by_pattern or is_image_name(p))
    if not named and by_pattern:
        raise CollectionError(
            f"Expected files that match {collection.pattern} in {collection.repository}, "
            f"found none of {len(keys):,}."
        )
    # The blob id of a file on the disk is not known before it is read.
    candidates = [FoundFile(path, keys[path], "" if files.folder else keys[path]) for path in named]
    outcomes = [FileOutcome(path, "excluded by the list", "") for path in excluded]
    if collection.rule == NAME:
        candidates = [_with_tool(file, collection) for file in candidates]
        outcomes += [left_out(file, file.problem) for file in candidates if file.problem]
        candidates = [file for file in candidates if not file.problem]
    return candidates, outcomes


def _with_tool(file: FoundFile, collection: Collection) -> FoundFile:
    """The file with the tool that named it, or with the reason why it is not taken."""
    tool = tool_of(file.path)
    if tool is None or collection.generator not in ("", tool.name):
        return replace(file, problem=NO_TOOL)
    if tool.held_out and collection.role != "test":
        return replace(file, problem=HELD_OUT)
    return replace(file, tool=tool.name)


def _label_listed(
    collection: Collection, files: Sequence[FoundFile]
) -> tuple[list[Labelled], list[FileOutcome]]:
    """Label what the list names, without second copies and what is beyond its limit."""
    rows, columns = map(range, collection.tiles)
    tiles = tuple(itertools.product(rows, columns))
    first: dict[str, FoundFile] = {}
    outcomes = [
        FileOutcome(file.path, Fate.DUPLICATE, first[file.blob].path)
        for file in files
        if first.setdefault(file.blob, file) is not file
    ]
    entries = []
    # At most as many as the list says, chosen by their contents; tiles count singly.
    every = sorted(itertools.product(first, tiles), key=lambda e: rank(0, f"{e[0]}/{e[1]}"))
    kept = set(every[: collection.limit])
    for blob, file in first.items():
        if some := tuple(tile for tile in tiles if (blob, tile) in kept):
            made_by, group = collection.generator_of(file.path), collection.group_of(file.path)
            entry = Labelled(file, collection.label, made_by, "named by the list", group, some)
            entries.append(entry)
        else:
            taken = f"{collection.limit:,} are taken"
            outcomes.append(FileOutcome(file.path, "beyond the list's limit", taken))
    return entries, outcomes


def _label_by_evidence(
    collection: Collection, files: Files, candidates: Sequence[FoundFile], options: CollectOptions
) -> tuple[list[Labelled], list[FileOutcome]]:
    reading = {"description": "Reading evidence", "unit": "file", "fewest": 100}
    reading["pool"] = Pool(options.workers)
    package = files.text(PACKAGE)
    candidates = [
        replace(file, problem=NO_PACKAGE)
        if file.tool and TOOLS[file.tool].package not in package
        else file
        for file in candidates
    ]
    read = files.read_each(read_evidence, candidates, options.min_side, options.kept_out, **reading)
    dates = files.dates()
    labelled, outcomes = label_files(
        [replace(file, committed=dates.get(file.blob, dates.get(""))) for file in read],
        makes_pictures=makes_pictures([collection.repository, files.text(README)]),
        wanted=collection.label,
        folder_groups=not collection.role,
    )
    grouped = (replace(e, group=collection.group_of(e.file.path) or e.group) for e in labelled)
    return list(grouped), outcomes


def _write_images(
    entry: Labelled,
    data: bytes | None,
    folder: str,
    collection: Collection,
    options: CollectOptions,
) -> PixelReview:
    """Write the pictures of a file below a folder; runs in a worker."""
    by_pattern, grid = collection.rule == PATTERN, collection.tiles
    try:
        if data is None or is_kept_out(data, options.kept_out):
            raise ImageError(MISSING if data is None else KEPT_OUT)
        image = decode_image(data)
        if min(image.width // grid[1], image.height // grid[0]) < options.min_side:
            raise ImageError(f"too small: {image.width} × {image.height} pixels")
        small = _shrink(image.image)
        if _is_blank(small):
            raise ImageError("blank")
        if not by_pattern and _is_plain(small):
            raise ImageError("plain: mostly flat or of one colour")
    except ImageError as error:
        return PixelReview(str(error))
    beginning = safe_name(PurePosixPath(entry.file.path).stem).encode()[:_STEM_BYTES]
    stem = f"{beginning.decode(errors='ignore')}-{entry.file.blob[:10]}"
    images = []
    for row, column in entry.tiles:
        picture, encoded, name = image.image, data, stem + file_extension(image.format)
        if grid != (1, 1):
            top, bottom = (image.height * place // grid[0] for place in (row, row + 1))
            left, right = (image.width * place // grid[1] for place in (column, column + 1))
            picture = image.image.crop((left, top, right, bottom))
            encoded, extension = _encode_tile(picture, data, image)
            name = f"{stem}-r{row}c{column}{extension}"
        path = f"{CLASS_FOLDERS[entry.label]}/{name}"
        write_new_file(f"{folder}/{path}", encoded)
        plain = by_pattern and _is_plain(picture)
        images.append((path, plain, perceptual_hash(np.asarray(_shrink(picture)))))
    return PixelReview("", tuple(images), drawn=image.mode in {"1", "LA", "P", "PA", "RGBA"})


def _encode_tile(tile: Image.Image, sheet: bytes, image: DecodedImage) -> tuple[bytes, str]:
    if image.format == "WEBP":
        # The fastest setting: the others save a few per cent and take ten times as long.
        return encode(tile, "WEBP", lossless=True, quality=0, method=0), ".webp"
    file_format, encode_pixels = encoder_like(sheet, image)
    return encode_pixels(np.asarray(tile)), file_extension(file_format)


def _shrink(image: Image.Image) -> Image.Image:
    """A picture by a whole factor smaller, with a longer side of at most 1,024 pixels."""
    return image.reduce(-(-max(image.size) // _SHRUNK_SIDE))


def _is_blank(image: Image.Image) -> bool:
    """Whether a picture shows nothing."""
    small = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    return np.ptp(np.asarray(small)) < _LEAST_CONTRAST


def _is_plain(image: Image.Image) -> bool:
    """Whether most of a picture is flat or of one colour, as posters and diagrams are.

    Such pictures are nearly all generated ones here, so a model would learn the layout.
    """
    if max(image.size) > _LONGEST_SIDE:
        image = image.copy()
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BOX)
    return are_plain(np.asarray(image)[None])
