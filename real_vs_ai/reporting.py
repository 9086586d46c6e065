"""How results and progress look on a terminal: numbers in, text out.

print(format_table(["class", "images"], [["Fake", 12]], title="data/train"))
for path in progress(paths, description="Hashing", unit="image"): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    items: Iterable[T], *, description: str, unit: str, total: int | None = None
) -> Iterable[T]:
    """The same items behind a progress bar, which shows on a terminal only."""
    # disable=None: tqdm stays silent where standard error is not a terminal.
    return progress_bar(items, description=description, unit=unit, total=total)


def progress_bar(
    items: Iterable[T] | None = None, *, description: str, unit: str, total: int | None = None
) -> tqdm:
    """A progress bar to be advanced by hand with `update(n)`; see `progress`."""
    return tqdm(
        items,
        desc=description,
        unit=f" {unit}s",
        total=total,
        disable=None,
        leave=False,
        dynamic_ncols=True,
        unit_scale=False,
    )


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


def plural(count: int, noun: str) -> str:
    """ "1 image", "2,000 images"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


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
