"""Write rows into a table that is whole in the end, and resumable until then.

Rows go at once into `scores.csv.partial`, one JSON object a line, whatever the format; closing the
file without an error writes the table from it in one step. A killed run, or a full disk, leaves the
partial file, and the next run goes on from there with `resume`. One run at a time has it open.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from real_vs_ai import __version__
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import atomic_write, lock_file, write_table
from real_vs_ai.serving.score_table import COLUMNS, LAST_COLUMNS, Row

FORMATS = ("csv", "json", "jsonl", "parquet")
_ROWS_IN_GROUP = 10_000


class ScoreFile:
    """A scores table that is being written; a context manager.

    Attributes:
        path: Where the table will be.
        partial: Holds the rows until then.
    """

    def __init__(
        self,
        path: Path,
        *,
        columns: Sequence[str],
        model: str,
        resume: bool,
        overwrite: bool,
        about: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Name the files; nothing is written before the context is entered.

        Args:
            path: Its suffix says the format: one of FORMATS. See `check_output`.
            columns: Of every row, in their order.
            model: Says which model and settings the rows come from; rows of another are refused.
            resume: Resume an unfinished table, if there is one.
            overwrite: Replace a finished table.
            about: What a JSON table says of the models.
        """
        self._about = list(about)
        self.path = path
        self.partial = _partial_path(path)
        self._format = score_format(path)
        self._columns = list(columns)
        self._header = {"columns": self._columns, "model": model}
        self._resume, self._overwrite = resume, overwrite
        self._done: set[bytes] = set()

    def __enter__(self) -> ScoreFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _open_alone(self.partial)
        try:
            self._begin()
        except BaseException:
            self._leave(remove=not self.partial.stat().st_size)
            raise
        return self

    def _begin(self) -> None:
        # Another run may have ended since the output was checked.
        _check_existing(self.path, self.partial, resume=self._resume, overwrite=self._overwrite)
        if self._resume:
            self._read_partial()
        else:
            self._file.truncate(0)
        if not self.partial.stat().st_size:
            self._write_line(self._header)

    def __exit__(self, kind: type | None, *_: object) -> None:
        # After an error or Ctrl-C what was scored stays in the partial file.
        if kind is None:
            with self._saying_how_to_go_on():
                self._file.flush()
                self._write_table()
        self._leave(remove=kind is None)

    def _write_table(self) -> None:
        with atomic_write(self.path) as staging:
            rows = _rows_of_partial(self.partial)
            if self._format == "json":
                _write_json(staging, rows, models=self._about)
            else:
                _WRITERS[self._format](staging, self._columns, rows)

    def _leave(self, *, remove: bool) -> None:
        """Close the partial file; remove it where it is not needed any more."""
        if remove and os.name != "nt":
            # While it is still ours: another run could take it over as soon as it is closed.
            self.partial.unlink()
        # What a full disk did not take is tried again here.
        with contextlib.suppress(OSError):
            self._file.close()
        if remove and os.name == "nt":
            self.partial.unlink()

    @contextlib.contextmanager
    def _saying_how_to_go_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._leave(remove=False)
            raise InputError(
                f"{error.strerror or error}: {self.partial} keeps what was scored. Make room, then "
                "go on with --resume."
            ) from error

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows; they are in the operating system's hands when this returns."""
        with self._saying_how_to_go_on():
            for row in rows:
                self._write_line(row)
            self._file.flush()

    def has(self, path: str) -> bool:
        """Whether the table already had a row for this image when it was opened."""
        return _key(path) in self._done

    @property
    def resumed_rows(self) -> int:
        """How many images the table already had when it was opened."""
        return len(self._done)

    def _write_line(self, value: Row) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")

    def _read_partial(self) -> None:
        """Note what is there already; leave out the half line of a killed process."""
        whole = 0
        with self.partial.open("rb") as file:
            for number, line in enumerate(file):
                value = _whole_line(line)
                if value is None:
                    break
                if number == 0:
                    self._check_header(value)
                elif isinstance(value.get("path"), str):
                    self._done.add(_key(value["path"]))
                else:
                    raise InputError(f"{self.partial} is damaged at line {number + 1}.")
                whole += len(line)
        self._file.truncate(whole)

    def _check_header(self, header: Row) -> None:
        if {name: header.get(name) for name in self._header} != self._header:
            raise InputError(
                f"{self.partial} was written with another model or other options "
                f"({header.get('model')}; now {self._header['model']}). Use those again, or start "
                "over with --overwrite."
            )


def score_format(path: Path) -> str:
    """The format that a table's name stands for; InputError if it is none of FORMATS."""
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        expected = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"Expected an output name that ends in {expected}, found {path.name!r}.")
    return suffix


def check_output(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output that is of no known format, or is there and may not be touched.

    Args:
        resume: Resume an unfinished table.
        overwrite: Replace an existing table; with `resume`, by an unfinished one.

    Raises:
        InputError: The suffix is none of FORMATS.
        FileExistsError: There is a table, finished or not, that may not be touched, or that another
            run writes now.
    """
    score_format(path)
    partial = _partial_path(path)
    if partial.exists():
        _open_alone(partial).close()
    _check_existing(path, partial, resume=resume, overwrite=overwrite)


def _check_existing(path: Path, partial: Path, *, resume: bool, overwrite: bool) -> None:
    if not overwrite and path.exists():
        raise FileExistsError(
            f"{path} is there already, and whole. Replace it with --overwrite, or name another."
        )
    if not overwrite and not resume and partial.exists() and partial.stat().st_size:
        raise FileExistsError(
            f"{partial} holds the scores of a run that did not end. Resume with --resume, or start "
            "over with --overwrite."
        )


def _partial_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _open_alone(partial: Path) -> TextIO:
    """Open a partial file to add to it, and keep other runs from doing so until it is closed.

    Raises:
        FileExistsError: Another run has it open.
    """
    while True:
        file = partial.open("a", encoding="utf-8", newline="\n")
        try:
            lock_file(file)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):  # noqa: PTH116 (pair)
                return file
        except FileNotFoundError:
            # The run that had it ended, and removed it, in between.
            pass
        except BlockingIOError as error:
            file.close()
            raise FileExistsError(
                f"Another run writes {partial} now. Wait until it ends, or name another --output."
            ) from error
        file.close()


def _whole_line(line: bytes) -> Row | None:
    try:
        value = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _rows_of_partial(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        next(file)
        yield from map(json.loads, file)


def _key(path: str) -> bytes:
    # A digest takes less memory than the name, and a million names are many.
    return hashlib.blake2b(path.encode(), digest_size=8).digest()


def _write_csv(path: Path, columns: list[str], rows: Iterable[Row]) -> None:
    cells = ([row.get(name) for name in columns] for row in rows)
    # Truth values as JSON spells them.
    spelt = ([str(c).lower() if isinstance(c, bool) else c for c in row] for row in cells)
    write_table(path, columns, spelt)


def _write_json(path: Path, rows: Iterable[Row], *, models: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        head = json.dumps({"version": __version__, "models": models}, ensure_ascii=False)
        file.write(f'{head[:-1]},\n"images": [')
        separator = "\n"
        for row in rows:
            file.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n"
        file.write("\n]}\n")


def _write_jsonl(path: Path, columns: list[str], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(path: Path, columns: list[str], rows: Iterable[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), bool: pa.bool_(), float: pa.float64()}
    kinds = COLUMNS | LAST_COLUMNS
    schema = pa.schema([(name, types[kinds.get(name, float)]) for name in columns])
    rows = iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(rows, _ROWS_IN_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


# JSON has a writer of its own, since it also says which model it comes from.
_WRITERS = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}
