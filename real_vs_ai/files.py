"""How a report's files are written: each appears whole or not at all, and JSON holds no NaN.

with atomic_write(run.predictions) as staging:
    staging.write_text(table)
write_json(run.metrics, metrics)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from real_vs_ai.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A file to write in place of `path`; it takes that name when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays, since libraries choose the format by it.
    staging = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_write(path) as staging:
        staging.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, values: Any) -> None:
    """Write JSON whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(plain(values), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not a JSON file ({error}).") from error


def plain(values: Any) -> Any:
    """The same in JSON's own types: numpy's become Python's, NaN and infinities None."""
    if isinstance(values, dict):
        return {str(key): plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple, np.ndarray)):
        return [plain(value) for value in values]
    if isinstance(values, (bool, np.bool_)):
        return bool(values)
    if isinstance(values, np.integer):
        return int(values)
    if isinstance(values, (float, np.floating)):
        return float(values) if math.isfinite(values) else None
    return values
