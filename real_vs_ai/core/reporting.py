"""Format results and progress for a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

# A log file gets a line about this often, in seconds; a little under ten, as nothing is exact.
LINE_SECONDS = 8.0
_LINE = "{desc}: {n:,.0f} of {total:,.0f}{unit} ({percentage:.0f} %){postfix}, {remaining} left"
_LINE_WITHOUT_TOTAL = "{desc}: {n:,.0f}{unit}{postfix}, {elapsed}"


def progress(
    items: Iterable[T] | None = None, *, description: str, unit: str, total: int | None = None
) -> tqdm:
    """The same items behind a progress bar; where there is no terminal, lines every 10 seconds.

    Without items, a bar to be advanced by hand with `update(n)`.
    """
    options = {"desc": description, "unit": f" {_several(unit)}", "total": total, "leave": False}
    if sys.stderr.isatty():
        return tqdm(items, **options, dynamic_ncols=True, unit_scale=False)
    if total is None and isinstance(items, Sized):
        total = len(items)
    lines = _ProgressLines(
        items,
        **options,
        bar_format=_LINE_WITHOUT_TOTAL if total is None else _LINE,
        mininterval=LINE_SECONDS,
        miniters=1,
        delay=LINE_SECONDS,
    )
    lines.noun = unit
    return lines


class _ProgressLines(tqdm):
    """A progress bar for log files: a line now and then, none for what is soon done."""

    monitor_interval = 0
    noun = ""
    disable: bool

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write the state as a line."""
        # The bar of an iteration draws itself once more when it ends, with an empty text.
        if msg != "":
            counted = self.n if self.total is None else self.total
            self.unit = f" {self.noun if counted == 1 else _several(self.noun)}"
            write_line(str(self))
        return True

    def close(self) -> None:
        """End without a word: what follows says that it is done."""
        if not self.disable:
            self.disable = True
            self._decr_instances(self)


class _Lines:
    """When the last line was written, and whether `keep_informed` writes more."""

    written = 0.0
    has_keeper = False


def write_line(text: str) -> None:
    """Write a line of progress to standard error."""
    _Lines.written = time.monotonic()
    print(text, file=sys.stderr, flush=True)


@contextmanager
def keep_informed(work: str) -> Iterator[None]:
    """Say every 10 seconds that work goes on, where neither a progress bar nor a terminal does.

    Some steps have no items to count: TensorFlow prepares a network for half a minute, and a
    report takes as long. Inside another `keep_informed` this one stays silent.

    Args:
        work: What is being done: "7/8 ModelTraining.py".
    """
    if _Lines.has_keeper or sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    started = _Lines.written = time.monotonic()

    def speak() -> None:
        while not ended.wait(LINE_SECONDS / 8):
            now = time.monotonic()
            if now - _Lines.written >= LINE_SECONDS:
                write_line(f"{work}: at work for {now - started:.0f} s")

    _Lines.has_keeper = True
    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()
        _Lines.has_keeper = False


def format_table(
    headers: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None
) -> str:
    """A plain table: text to the left, numbers to the right with thousands separated."""
    rows = [list(row) for row in rows]
    numeric = [
        all(isinstance(row[i], (int, float)) or row[i] in ("", None) for row in rows)
        for i in range(len(headers))
    ]
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]

    def line(values: Sequence[str]) -> str:
        aligned = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    lines = [line(list(headers)), "  ".join("-" * width for width in widths)]
    lines.extend(line(row) for row in cells)
    return "\n".join([title, *lines] if title else lines)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; whole numbers get commas, every other cell is shown as text."""
    lines = [_markdown_row(headers), "|" + " --- |" * len(headers), *map(_markdown_row, rows)]
    return "\n".join(lines)


def _markdown_row(cells: Sequence[Any]) -> str:
    texts = (f"{cell:,}" if type(cell) is int else markdown_text(cell) for cell in cells)
    return f"| {' | '.join(texts)} |"


def markdown_text(value: Any) -> str:
    """Text that Markdown cannot take for markup."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text


def plural(count: int, noun: str) -> str:
    """ "1 image", "2,000 images"."""
    return f"{count:,} {noun if count == 1 else _several(noun)}"


def _several(noun: str) -> str:
    if noun.endswith(("ss", "x", "sh", "tch")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value)
