"""A whole scoring: inputs → a table in a file or on the terminal, and a summary.

summary = score_to_file(["photos"], open_detector=Detector.open, output=Path("scores.csv"), …)
print(summary)
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.reporting import format_table, plural, progress
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.image_sources import (
    STANDARD_INPUT,
    ImageSource,
    check_inputs,
    iterate_sources,
)
from real_vs_ai.serving.model_cache import fingerprint
from real_vs_ai.serving.score_files import ScoreFile, check_output
from real_vs_ai.serving.scoring import ImageScore, score_images

COLUMNS = (
    "path", "label", "probability_fake", "confidence", "width", "height", "format",
    "provenance", "error",
)  # fmt: skip
# Finer differences are the engine's rounding, not the image's.
_DECIMALS = 6
_ROWS_BETWEEN_WRITES = 64
UNREADABLE = "unreadable"
# The path stands last: only its length is not known before the last image is.
_TERMINAL_LAYOUT = "{:<12} {:>16}  {:>10}  {:>11}  {:<6}  {}"
_TERMINAL_HEADER = _TERMINAL_LAYOUT.format(
    "label", "probability_fake", "confidence", "size", "format", "path"
)


@dataclass(frozen=True)
class ScoringSummary:
    """What a scoring did.

    Attributes:
        counts: Images by verdict, the unreadable ones under UNREADABLE.
        resumed: Images that the table had before.
        seconds: From the first image to the last.
        engine: The engine and precision they were judged with.
    """

    counts: dict[str, int]
    resumed: int
    seconds: float
    engine: str

    @property
    def unreadable(self) -> int:
        return self.counts.get(UNREADABLE, 0)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        rows = [
            [label, count, f"{count / total:.1%}"] for label, count in self.counts.items() if count
        ]
        rate = total / self.seconds if self.seconds else 0.0
        title = f"{plural(total, 'image')} scored with {self.engine}, {rate:,.1f} a second"
        if self.resumed:
            title += f"; {plural(self.resumed, 'image')} had been scored before"
        return format_table(["verdict", "images", "share"], rows, title=title) if rows else title


def run_scoring(
    inputs: Sequence[str],
    *,
    model: Path | None,
    engine: str | None,
    precision: str | None,
    output: Path | None,
    resume: bool,
    overwrite: bool,
    workers: int,
) -> ScoringSummary:
    """Score to the output, or to standard output without one; see `score_to_file`.

    Args:
        model: See `Detector.open`, as for `engine` and `precision`.

    Raises:
        ValueError: `resume` or `overwrite` without an output.
    """

    def open_detector() -> Detector:
        return Detector.open(model, engine=engine, precision=precision)

    if output is None:
        if resume or overwrite:
            raise ValueError("Expected --output FILE with --resume and --overwrite, found none.")
        return score_to_terminal(
            inputs, open_detector=open_detector, stream=sys.stdout, workers=workers
        )
    return score_to_file(
        inputs, open_detector=open_detector, output=output, resume=resume, overwrite=overwrite,
        workers=workers,
    )  # fmt: skip


def score_to_file(
    inputs: Sequence[str],
    *,
    open_detector: Callable[[], Detector],
    output: Path,
    resume: bool,
    overwrite: bool,
    workers: int,
) -> ScoringSummary:
    """Write a row for every image of the inputs.

    Args:
        inputs: See `iterate_sources`.
        open_detector: Called when inputs and output are known to be usable.
        output: `.csv`, `.json`, `.jsonl` or `.parquet`.
        resume: Leave out what the table already has, and add the rest.
        overwrite: Replace a table that is there.
        workers: Threads that decode.

    Raises:
        FileExistsError: The output exists and neither `resume` nor `overwrite` is given.
        FileNotFoundError: An input is not there.
        ValueError: The output's name or one of the inputs is of no known kind.
    """
    check_inputs(inputs)
    check_output(output, resume=resume, overwrite=overwrite)
    detector = open_detector()
    columns = score_columns(detector.metadata)
    with ScoreFile(output, columns=columns, model=_identity(detector), resume=resume) as file:
        sources = (s for s in _behind_progress_bar(inputs) if not file.has(s.name))
        scores = score_images(sources, detector=detector, workers=workers)
        return _consume(scores, detector=detector, write=file.append, resumed=file.resumed_rows)


def score_to_terminal(
    inputs: Sequence[str], *, open_detector: Callable[[], Detector], stream: TextIO, workers: int
) -> ScoringSummary:
    """Print a line for every image of the inputs as it is scored; see `score_to_file`."""
    check_inputs(inputs)
    detector = open_detector()

    def write(rows: list[dict[str, Any]]) -> None:
        stream.writelines(f"{_terminal_line(row)}\n" for row in rows)
        stream.flush()

    stream.write(f"{_TERMINAL_HEADER}\n")
    # A bar among the lines of a table would be torn.
    sources = iterate_sources(inputs) if stream.isatty() else _behind_progress_bar(inputs)
    scores = score_images(sources, detector=detector, workers=workers)
    return _consume(scores, detector=detector, write=write, resumed=0)


def score_columns(metadata: ModelMetadata) -> tuple[str, ...]:
    """The table's columns: COLUMNS, and every class's probability unless there are only two."""
    if metadata.positive_index is not None:
        return COLUMNS
    return (*COLUMNS, *(f"probability_{name}" for name in metadata.class_names))


def score_row(score: ImageScore, metadata: ModelMetadata) -> dict[str, Any]:
    """One row of the table, with None where there is nothing to say."""
    verdict = score.verdict
    values: dict[str, Any] = {
        "path": score.path,
        "label": verdict.label if verdict else "",
        "probability_fake": _rounded(verdict.probability_fake) if verdict else None,
        "confidence": _rounded(verdict.confidence) if verdict else None,
        "width": score.width,
        "height": score.height,
        "format": score.format,
        "provenance": score.provenance,
        "error": score.error,
    }
    if metadata.positive_index is None:
        for name in metadata.class_names:
            values[f"probability_{name}"] = (
                _rounded(verdict.probabilities[name]) if verdict else None
            )
    return values


def _consume(
    scores: Iterator[ImageScore],
    *,
    detector: Detector,
    write: Callable[[list[dict[str, Any]]], None],
    resumed: int,
) -> ScoringSummary:
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    # Groups no larger than this are lost by a kill, and done again by --resume.
    while group := list(itertools.islice(scores, _ROWS_BETWEEN_WRITES)):
        write([score_row(score, detector.metadata) for score in group])
        counts.update(s.verdict.label if s.verdict else UNREADABLE for s in group)
    labels = (*detector.metadata.class_names, UNCERTAIN, UNREADABLE)
    return ScoringSummary(
        counts={label: counts[label] for label in labels},
        resumed=resumed,
        seconds=time.perf_counter() - started,
        engine=f"{detector.engine_name} ({detector.precision})",
    )


def _behind_progress_bar(inputs: Sequence[str]) -> Iterator[ImageSource]:
    """The sources; on a terminal they are counted first, so that the bar knows the time left."""
    countable = sys.stderr.isatty() and STANDARD_INPUT not in inputs
    total = sum(1 for _ in iterate_sources(inputs)) if countable else None
    yield from progress(iterate_sources(inputs), description="Scoring", unit="image", total=total)


def _identity(detector: Detector) -> str:
    return f"{fingerprint(detector.model_path)[:16]} {detector.engine_name} {detector.precision}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)


def _terminal_line(row: dict[str, Any]) -> str:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    size = f"{row['width']}×{row['height']}" if row["width"] else ""
    # A stranger's file name may hold line breaks and escape sequences.
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in row["path"])
    line = _TERMINAL_LAYOUT.format(
        row["label"] or UNREADABLE, number(row["probability_fake"]), number(row["confidence"]),
        size, row["format"], name,
    )  # fmt: skip
    details = "; ".join(filter(None, [row["error"], row["provenance"]]))
    return f"{line}  ({details})" if details else line
