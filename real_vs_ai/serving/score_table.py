"""Write answers as rows of a table, as JSON documents and as lines for the terminal.

Rows of a table go at once into `scores.csv.partial`, one JSON object a line, whatever the format;
closing the file without an error writes the table from it in one step. A killed run leaves the
partial file, and the next one resumes from there with `resume`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_vs_ai import __version__
from real_vs_ai.errors import InputError
from real_vs_ai.files import atomic_write, write_table
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.conclusion import ConclusionCode

if TYPE_CHECKING:
    from real_vs_ai.serving.judge import Answer

FORMATS = ("csv", "json", "jsonl", "parquet")
_ROWS_IN_GROUP = 10_000
Row = dict[str, Any]
# Finer differences are the engine's rounding, not the image's.
_DECIMALS = 6
_TERMINAL_COLUMNS = 80
_LONGEST_TITLE = 34
# The path stands last: only its length is not known before the last image is.
_TERMINAL_LAYOUT = f"{{:<{_LONGEST_TITLE}}}  {{}}"
TERMINAL_HEADER = _TERMINAL_LAYOUT.format("conclusion", "image")
# Their titles say what the model sees.
_PLAIN = {ConclusionCode.LOOKS_AI, ConclusionCode.LOOKS_PHOTOGRAPH, ConclusionCode.OTHER_CLASS}


# The columns, with the kind of their values; only texts are never missing. To add one, add a line
# here and its value to `score_row`. The first ones keep their places.
COLUMNS = {
    "path": str,
    "label": str,
    "probability_fake": float,
    "confidence": float,
    "width": int,
    "height": int,
    "format": str,
    "provenance": str,
    "error": str,
}
# Between them stands each class's probability, a float, unless the classes are Fake and Real.
LAST_COLUMNS = {
    "out_of_distribution": bool,
    # The first reason of the verdict: its code for programs, its sentence for people.
    "reason": str,
    "note": str,
    # The model that judged the image, where several answer together.
    "model": str,
    "sha256": str,
    "conclusion": str,
    "file_says": str,
    "generator": str,
}


def score_columns(metadata: ModelMetadata) -> list[str]:
    """The names of all columns, in their order."""
    of_classes = () if metadata.positive_index is not None else metadata.class_names
    return [*COLUMNS, *(f"probability_{name}" for name in of_classes), *LAST_COLUMNS]


def score_row(answer: Answer, metadata: ModelMetadata) -> Row:
    """One row of the table, with None where there is nothing to say."""
    verdict, found = answer.verdict, answer.conclusion
    reason = verdict.reasons[0] if verdict and verdict.reasons else None
    values = {
        "path": answer.name,
        "label": verdict.label if verdict else "",
        "probability_fake": verdict and verdict.probability_fake,
        "confidence": verdict and verdict.confidence,
        "width": answer.width,
        "height": answer.height,
        "format": answer.format,
        "provenance": " ".join(finding.text for finding in answer.findings),
        "error": answer.error,
        "out_of_distribution": verdict and verdict.out_of_distribution,
        "reason": reason.code.value if reason else "",
        "note": reason.sentence if reason else "",
        "model": verdict.model if verdict else "",
        "sha256": answer.sha256,
        "conclusion": found.code.value,
        "file_says": found.file_says.value,
        "generator": found.generator,
    }
    if verdict:
        values |= {f"probability_{name}": p for name, p in verdict.probabilities.items()}
    row = {name: values.get(name) for name in score_columns(metadata)}
    return {k: round(v, _DECIMALS) if isinstance(v, float) else v for k, v in row.items()}


def score_document(answer: Answer, metadata: ModelMetadata) -> Row:
    """The row with all that is known besides, for JSON."""
    verdict, found = answer.verdict, answer.conclusion
    return {
        **score_row(answer, metadata),
        "title": found.title,
        "from_file": found.from_file,
        "from_model": found.from_model,
        "next_steps": list(found.next_steps),
        "history": list(found.history),
        "ingredients": list(found.ingredients),
        "reasons": [
            {"code": reason.code.value, "sentence": reason.sentence}
            for reason in (verdict.reasons if verdict else ())
        ],
        "probabilities": dict(verdict.probabilities) if verdict else {},
        "provenance": [
            {
                "code": finding.code,
                "kind": finding.kind,
                "sentence": finding.text,
                "speaks_for": finding.speaks_for,
                "forgery": finding.forgery,
                "generator": finding.generator,
                "seal": finding.seal,
            }
            for finding in answer.findings
        ],
        "remarks": list(answer.notes),
    }


def terminal_lines(answer: Answer) -> str:
    """One file under TERMINAL_HEADER: the conclusion, then its reasons; ends with a line break.

    No line is longer than 80 characters. A longer path is shown by its end.
    """
    found = answer.conclusion
    title = _on_one_line(found.title)[:_LONGEST_TITLE]
    path, room = _on_one_line(answer.name), _TERMINAL_COLUMNS - _LONGEST_TITLE - 2
    shown = path if len(path) <= room else f"…{path[1 - room :]}"
    why = "" if found.code in _PLAIN and not found.from_file else found.sentence
    indent = " " * 4
    reasons = textwrap.wrap(
        _on_one_line(why), _TERMINAL_COLUMNS, initial_indent=indent, subsequent_indent=indent
    )
    return "".join(f"{line}\n" for line in (_TERMINAL_LAYOUT.format(title, shown), *reasons))


def _on_one_line(text: str) -> str:
    """Without line breaks and escape sequences, which file names and metadata may hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


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
        about: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Name the files; nothing is written before the context is entered.

        Args:
            path: Its suffix says the format: one of FORMATS. See `check_output`.
            columns: Of every row, in their order.
            model: Says which model and settings the rows come from; rows of another are refused.
            resume: Resume an unfinished table, if there is one.
            about: What a JSON table says of the models.
        """
        self._about = list(about)
        self.path = path
        self.partial = _partial_path(path)
        self._format = score_format(path)
        self._columns = list(columns)
        self._header = {"columns": self._columns, "model": model}
        self._resume = resume
        self._done: set[bytes] = set()

    def __enter__(self) -> ScoreFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._resume and self.partial.exists():
            self._file = self._reopen_partial()
        else:
            self._file = self.partial.open("w", encoding="utf-8", newline="\n")
            self._write_line(self._header)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._file.close()
        # After an error or Ctrl-C what was scored stays in the partial file.
        if kind is None:
            with atomic_write(self.path) as staging:
                rows = _rows_of_partial(self.partial)
                if self._format == "json":
                    _write_json(staging, rows, models=self._about)
                else:
                    _WRITERS[self._format](staging, self._columns, rows)
            self.partial.unlink()

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows; they are in the operating system's hands when this returns."""
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

    def _reopen_partial(self):
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
        # A killed process may leave half a line behind.
        os.truncate(self.partial, whole)
        file = self.partial.open("a", encoding="utf-8", newline="\n")
        if whole == 0:
            self._file = file
            self._write_line(self._header)
        return file

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
        FileExistsError: There is a table, finished or not, that may not be touched.
    """
    score_format(path)
    partial = _partial_path(path)
    if not overwrite and path.exists():
        raise FileExistsError(
            f"{path} is there already, and whole. Replace it with --overwrite, or name another."
        )
    if not overwrite and not resume and partial.exists():
        raise FileExistsError(
            f"{partial} holds the scores of a run that did not end. Resume with --resume, or start "
            "over with --overwrite."
        )


def _partial_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


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
