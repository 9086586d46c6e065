"""Find the images to score in files, folders, zip archives, lists and manifests.

Sources are found one by one, in a stable order, and read only when needed, so that a million of
them cost no more memory than the names of one folder.
"""

from __future__ import annotations

import functools
import glob
import io
import itertools
import operator
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

from real_vs_ai.core.config import ARCHIVE_SUFFIXES, MAX_IMAGE_BYTES
from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.core.files import is_junk, iterate_files, read_table
from real_vs_ai.core.images import ImageError, is_image_name, read_image_file
from real_vs_ai.core.messages import Message
from real_vs_ai.core.reporting import plural

STANDARD_INPUT = "-"
_ZIP_SUFFIX = ".zip"
_MANIFEST_SUFFIX = ".csv"
# With other methods zipfile unpacks all that a few bytes may hold before it counts.
_BOUNDED_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
# Inputs, or endings of files, that a message names.
_MOST_NAMED = 3
_LONGEST_ENDING = 10
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LINE_BREAKS = str.maketrans({"\n": r"\n", "\r": r"\r"})


@dataclass(frozen=True)
class ImageSource:
    """One image that can be read; small, and fit to be sent to another process.

    Attributes:
        name: What the scores table calls it: its path, a zip's members as archive.zip/inner/path.
        file: The image's own file, or the archive that holds it.
        member: Index of the entry in the archive's directory, or None for a file. (Not its name:
            an archive may hold two entries of one name.)
    """

    name: str
    file: str
    member: int | None = None


def expand_inputs(inputs: Sequence[str]) -> list[str]:
    """The inputs, with the files of each pattern ("*.png", "photos/**/*.png") in its place, sorted.

    An input that is missing stays: it gets a row with its error, and does not stop the others.

    Raises:
        FileNotFoundError: None of the inputs is there.
        InputError: One is an archive other than a zip, or standard input is no text.
    """
    paths: list[str] = []
    for text in inputs:
        is_pattern = glob.has_magic(text) and not Path(text).exists()
        # Path.glob takes no absolute pattern.
        matches = sorted(glob.glob(text, recursive=True)) if is_pattern else []  # noqa: PTH207
        paths += matches or [text]
    missing = [text for text in paths if text != STANDARD_INPUT and not Path(text).exists()]
    if missing and len(missing) == len(paths):
        raise FileNotFoundError(why_missing(missing[0]))
    for text in paths:
        path = Path(text)
        if path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES) and not _is_zip(path):
            raise InputError(
                f"Expected a .zip archive, found {path}. Unpack it and name the folder."
            )
    if STANDARD_INPUT in paths and b"\0" in _first_bytes_of_stdin():
        raise InputError(
            "Expected one path a line on standard input, found binary data. Name the file itself."
        )
    return paths


def _first_bytes_of_stdin() -> bytes:
    """What has come already; it stays to be read."""
    buffer = getattr(sys.stdin, "buffer", None)
    return buffer.peek() if isinstance(buffer, io.BufferedReader) else b""


def why_missing(text: str) -> str:
    """Why an input that is not there cannot be read, in a sentence or two."""
    if _ADDRESS.match(text):
        return f"Expected a file, found the address {text}. Download it first: nothing is fetched."
    return f"Expected an image, folder or zip at {text}, found nothing."


def are_single_files(inputs: Sequence[str]) -> bool:
    """Whether each input is one image, not a folder, an archive, a manifest or a list."""
    return all(
        text != STANDARD_INPUT
        and Path(text).is_file()
        and not _is_zip(Path(text))
        and Path(text).suffix.lower() != _MANIFEST_SUFFIX
        for text in inputs
    )


def require_images(inputs: Sequence[str]) -> None:
    """Refuse inputs without a single image; what standard input lists is not looked at.

    Raises:
        InputError: There is none; the message counts the other files.
    """
    left_out: Counter[str] = Counter()
    if STANDARD_INPUT in inputs or any(True for _ in iterate_sources(inputs, left_out=left_out)):
        return
    names = ", ".join(inputs[:_MOST_NAMED]) + (", …" if len(inputs) > _MOST_NAMED else "")
    others = f"only {describe_left_out(left_out)}" if left_out else "no file"
    raise InputError(f"Expected images in {names}, found {others}. Name other files or folders.")


def describe_left_out(left_out: Counter[str]) -> str:
    """Files that are no images by their names, counted.

    >>> describe_left_out(Counter({".pdf": 2, "": 1}))
    '3 files that are no images (2 .pdf, 1 without ending)'
    """
    kinds = [
        f"{count:,} {ending[:_LONGEST_ENDING] or 'without ending'}"
        for ending, count in left_out.most_common(_MOST_NAMED)
    ]
    more = ["others"] if len(left_out) > _MOST_NAMED else []
    what = "that is no image" if left_out.total() == 1 else "that are no images"
    return f"{plural(left_out.total(), 'file')} {what} ({', '.join([*kinds, *more])})"


def iterate_sources(
    inputs: Iterable[str], *, listing: TextIO | None = None, left_out: Counter[str] | None = None
) -> Iterator[ImageSource]:
    """Every image of the inputs: these in the order given, folders and archives sorted.

    Args:
        inputs: Paths of images (whatever their names), folders (searched; images are recognised
            by their names), `.zip` archives (the same), `.csv` manifests with a column `path`
            (relative to the manifest's folder), or "-" for one path a line on standard input.
        listing: Read instead of standard input.
        left_out: Counts the files of folders and archives that are no images by their names, by
            their endings.
    """
    left_out = Counter() if left_out is None else left_out
    for text in _without_repeats(inputs):
        path = Path(text)
        if text == STANDARD_INPUT:
            yield from _listed(listing or sys.stdin)
        elif path.is_dir():
            for file in iterate_files(path):
                if is_image_name(file):
                    yield _file_source(file)
                else:
                    left_out[file.suffix.lower()] += 1
        elif _is_zip(path):
            yield from _in_zip(path, left_out)
        elif path.suffix.lower() == _MANIFEST_SUFFIX:
            rows = read_table(path, ("path",))
            yield from (_file_source(path.parent / image) for (image,) in rows if image)
        else:
            yield _named_source(text)


def read_source(source: ImageSource, *, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
    """The image's bytes.

    Raises:
        ImageError: It is too large, or its archive entry is damaged or encrypted.
        OSError: It cannot be read.
    """
    if source.member is None:
        try:
            return read_image_file(source.file, max_bytes=max_bytes)
        except FileNotFoundError as error:
            if _ADDRESS.match(source.file):
                raise ImageError(Message("error.address")) from error
            raise
    return read_zip_entry(_open_zip(source.file), source.member, max_bytes=max_bytes)


def read_zip_entry(archive: zipfile.ZipFile, member: int, *, max_bytes: int) -> bytes:
    """The bytes of the entry with this index in the archive's directory.

    Raises:
        ImageError: It is too large, damaged or encrypted.
    """
    entry = archive.infolist()[member]
    _check_size(entry.file_size, max_bytes)
    if entry.compress_type not in _BOUNDED_METHODS:
        raise ImageError(Message("error.compression"))
    try:
        with archive.open(entry) as file:
            # An entry may hold more than its directory says.
            data = file.read(max_bytes + 1)
    except Exception as error:  # zipfile and its decompressors raise a dozen kinds.
        raise ImageError(Message("error.zip_entry", reason=one_line(error))) from error
    _check_size(len(data), max_bytes)
    return data


def list_zip_images(archive: zipfile.ZipFile) -> Iterator[tuple[str, int]]:
    """Name and index of each entry that is named as an image, sorted; no two names are alike."""
    named = sorted((entry.filename, index) for index, entry in enumerate(archive.infolist()))
    for name, same_named in itertools.groupby(named, key=operator.itemgetter(0)):
        parts = PurePosixPath(name).parts
        if is_image_name(name) and not name.endswith("/") and not any(map(is_junk, parts)):
            for number, (_, index) in enumerate(same_named, start=1):
                # A table's rows must tell them apart.
                yield _printable(name) + (f"#{number}" if number > 1 else ""), index


def printable_name(path: Path) -> str:
    """A path with forward slashes, undecodable bytes and line breaks escaped: fit for any table."""
    return _printable(path.as_posix())


def _in_zip(path: Path, left_out: Counter[str]) -> Iterator[ImageSource]:
    try:
        archive = _open_zip(str(path))
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable zip archive: {one_line(error)}.") from error
    for name, index in list_zip_images(archive):
        yield ImageSource(f"{printable_name(path)}/{name}", str(path), index)
    for entry in archive.infolist():
        inner = PurePosixPath(entry.filename)
        if not (entry.is_dir() or is_image_name(entry.filename) or any(map(is_junk, inner.parts))):
            left_out[inner.suffix.lower()] += 1


def _listed(lines: TextIO) -> Iterator[ImageSource]:
    if isinstance(lines, io.TextIOWrapper):
        # A name that is not text comes as the file system gives it.
        lines.reconfigure(errors="surrogateescape")
    for line in lines:
        if line.strip():
            yield _named_source(line.rstrip("\r\n"))


def _without_repeats(inputs: Iterable[str]) -> list[str]:
    """The inputs without those whose images another one brings anyway: each has one row."""
    places: dict[Path, str] = {}
    for text in inputs:
        path = Path(text)
        # A link to a file is found where it lies, under its own name; one to a folder is not.
        is_file = text != STANDARD_INPUT and not path.is_dir()
        place = path.parent.resolve() / path.name if is_file else path.resolve()
        places.setdefault(place, text)
    folders = {place for place in places if place.is_dir()}
    return [text for place, text in places.items() if not _is_found(place, folders)]


def _is_found(place: Path, folders: set[Path]) -> bool:
    """Whether searching one of the folders finds this folder or file."""
    # Only folders and files named as images are found, and nothing that is hidden.
    return (place in folders or is_image_name(place)) and any(
        parent in folders and not any(map(is_junk, place.relative_to(parent).parts))
        for parent in place.parents
    )


def _named_source(text: str) -> ImageSource:
    if _ADDRESS.match(text):
        # A path would lose one of its slashes.
        return ImageSource(_printable(text), text)
    return _file_source(Path(text))


def _file_source(path: Path) -> ImageSource:
    return ImageSource(printable_name(path), str(path))


# A handful stay open: reading the directory of a large archive for each entry would take longer
# than the entries.
@functools.lru_cache(maxsize=4)
def _open_zip(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == _ZIP_SUFFIX


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageError(Message("error.too_large", bytes=size, most=max_bytes))


def _printable(name: str) -> str:
    return name.translate(_LINE_BREAKS).encode("utf-8", "backslashreplace").decode("utf-8")
