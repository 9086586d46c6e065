"""Run a scoring job: read inputs, write a table or print it, and summarise.

options = ScoringOptions(model=None, engine=None, precision=None, workers=2, …)
summary = run_scoring(["photos"], options=options, output=Path("scores.csv"), …)
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TextIO

from real_vs_ai.errors import InputError
from real_vs_ai.files import hash_file
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.reporting import format_table, plural, progress
from real_vs_ai.runs import find_models
from real_vs_ai.serving.conclusion import TITLES, ConclusionCode
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.image_sources import (
    STANDARD_INPUT,
    ImageSource,
    are_single_files,
    expand_inputs,
    iterate_sources,
    why_missing,
)
from real_vs_ai.serving.judge import Answer, judge_files
from real_vs_ai.serving.score_files import ScoreFile, check_output
from real_vs_ai.serving.score_table import (
    TERMINAL_HEADER,
    describe_model,
    score_columns,
    score_row,
    terminal_lines,
)

# As an output: JSON lines, for another program to read.
STANDARD_OUTPUT = Path("-")
_ROWS_BETWEEN_WRITES = 64
# As many images on the terminal are judged one by one: the form for batches need not be compiled.
_FEW_IMAGES = 4


@dataclass(frozen=True)
class ScoringOptions:
    """How images are scored.

    Attributes:
        model: As in `Detector.open`, with engine and precision.
        cluster: "ray" spreads the work over a Ray cluster; None keeps it on this machine.
        workers: Threads that decode, on each machine.
    """

    model: Path | None
    engine: str | None
    cluster: str | None
    precision: str | None
    workers: int


class Scorer(Protocol):
    """What turns sources into scores, here or elsewhere.

    Attributes:
        metadata: The model's.
        engine: What people read: "openvino (bf16)".
        identity: Differs whenever the scores may: model content, engine, precision.
        models: Which models judge, for JSON tables; see `describe_model`.
    """

    metadata: ModelMetadata
    engine: str
    identity: str
    models: list[dict[str, Any]]

    def score(self, sources: Iterable[ImageSource]) -> Iterator[Answer]:
        """One answer for each source, in order."""


class LocalScorer:
    """Scores on this machine; see `Scorer`."""

    def __init__(self, detector: Detector, *, workers: int, in_batches: bool = True) -> None:
        self._detector, self._workers, self._in_batches = detector, workers, in_batches
        self.metadata = detector.metadata
        self.engine = f"{detector.engine.name} ({detector.engine.precision})"

    @cached_property
    def _hashes(self) -> list[str]:
        # Hashing large files takes a while, and only tables in files name the hashes.
        return [hash_file(one.model_path) for one in self._detector.detectors]

    @property
    def identity(self) -> str:
        return f"{'+'.join(sha256[:16] for sha256 in self._hashes)} {self.engine}"

    @property
    def models(self) -> list[dict[str, Any]]:
        return [
            describe_model(one.name, sha256, one.metadata)
            for one, sha256 in zip(self._detector.detectors, self._hashes, strict=True)
        ]

    def score(self, sources: Iterable[ImageSource]) -> Iterator[Answer]:
        return judge_files(
            sources, detector=self._detector, workers=self._workers, in_batches=self._in_batches
        )


@dataclass(frozen=True)
class ScoringSummary:
    """What a scoring did.

    Attributes:
        counts: Images by conclusion.
        resumed: Images that the table had before.
        seconds: From the first image to the last.
    """

    counts: dict[ConclusionCode, int]
    resumed: int
    seconds: float
    engine: str

    @property
    def unreadable(self) -> int:
        """Images that have an error instead of a verdict."""
        return self.counts.get(ConclusionCode.UNREADABLE, 0)

    def failed(self, *, strict: bool) -> bool:
        """Whether no image could be read; with `strict`, whether any could not."""
        return self.unreadable > 0 and (strict or self.unreadable == sum(self.counts.values()))

    def __str__(self) -> str:
        total = sum(self.counts.values())
        rows = [
            [TITLES[code], self.counts[code], f"{self.counts[code] / total:.1%}"]
            for code in ConclusionCode
            if self.counts.get(code)
        ]
        rate = total / self.seconds if self.seconds else 0.0
        title = f"{plural(total, 'image')} scored with {self.engine}, {rate:,.1f} a second"
        if self.resumed:
            title += f"; {plural(self.resumed, 'image')} had been scored before"
        return format_table(["conclusion", "images", "share"], rows, title=title) if rows else title


def run_scoring(
    inputs: Sequence[str],
    *,
    options: ScoringOptions,
    output: Path | None,
    resume: bool,
    overwrite: bool,
) -> ScoringSummary:
    """Score every image of the inputs to a file, or to standard output.

    Args:
        inputs: See `iterate_sources`.
        output: `.csv`, `.json`, `.jsonl` or `.parquet`; "-" for JSON lines on standard output,
            None for a table there that people read.
        resume: Leave out what the output already has, and add the rest.
        overwrite: Replace an existing output.

    Raises:
        FileExistsError: The output exists and neither `resume` nor `overwrite` is given.
        FileNotFoundError: The model, or every input, is not there.
        ValueError: An input or the output is of no known kind, or options do not go together.
    """
    inputs = expand_inputs(inputs)
    to_pipe = output == STANDARD_OUTPUT
    if (output is None or to_pipe) and (resume or overwrite):
        raise InputError("Expected --output FILE with --resume and --overwrite, found none.")
    for text in inputs:
        if text != STANDARD_INPUT and not Path(text).exists():
            print(f"error: {why_missing(text)} The others are scored.", file=sys.stderr)
    if to_pipe:
        return score_to_pipe(inputs, scorer=open_scorer(options), stream=sys.stdout)
    if output is None:
        few = len(inputs) <= _FEW_IMAGES and are_single_files(inputs)
        return score_to_terminal(
            inputs, scorer=open_scorer(options, in_batches=not few), stream=sys.stdout
        )
    # Before the model is opened: that takes seconds.
    check_output(output, resume=resume, overwrite=overwrite)
    return score_to_file(inputs, scorer=open_scorer(options), output=output, resume=resume)


def open_scorer(options: ScoringOptions, *, in_batches: bool = True) -> Scorer:
    """Open the model on this machine, or on a Ray cluster, which always works in batches.

    Raises:
        FileNotFoundError: There is no such model.
        InputError: It cannot be opened with these options.
    """
    model_paths = find_models(options.model)
    names = " and ".join(map(str, model_paths))
    if len(model_paths) > 1 and options.cluster:
        raise InputError(f"Expected one model for these options, found {names}. Name it: --model.")
    try:
        return _open_scorer(model_paths[0], options, in_batches=in_batches)
    # OpenVINO, the conversion and Ray say so of what they cannot run.
    except RuntimeError as error:
        raise InputError(f"{names} cannot be used here: {error}") from error


def _open_scorer(model_path: Path, options: ScoringOptions, *, in_batches: bool) -> Scorer:
    if options.cluster:
        from real_vs_ai.serving.ray_scoring import RayScorer

        return RayScorer(model_path, precision=options.precision)
    detector = Detector.open(
        options.model, engine=options.engine, precision=options.precision, for_batches=in_batches
    )
    if detector.engine.note:
        print(detector.engine.note, file=sys.stderr)
    return LocalScorer(detector, workers=options.workers, in_batches=in_batches)


def score_to_file(
    inputs: Sequence[str], *, scorer: Scorer, output: Path, resume: bool
) -> ScoringSummary:
    """Write a row for every image of the inputs; see `run_scoring`."""
    columns = tuple(score_columns(scorer.metadata))
    with ScoreFile(
        output, columns=columns, model=scorer.identity, about=scorer.models, resume=resume
    ) as file:
        sources = (s for s in _with_progress_bar(inputs) if not file.has(s.name))

        def write(answers: list[Answer]) -> None:
            file.append(score_row(answer, scorer.metadata) for answer in answers)

        return _consume(sources, scorer=scorer, write=write, resumed=file.resumed_rows)


def score_to_pipe(inputs: Sequence[str], *, scorer: Scorer, stream: TextIO) -> ScoringSummary:
    """Print a JSON object a line for every image of the inputs; see `run_scoring`."""

    def write(answers: list[Answer]) -> None:
        rows = (score_row(answer, scorer.metadata) for answer in answers)
        stream.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        stream.flush()

    sources = _with_progress_bar(inputs)
    return _consume(sources, scorer=scorer, write=write, resumed=0)


def score_to_terminal(inputs: Sequence[str], *, scorer: Scorer, stream: TextIO) -> ScoringSummary:
    """Print a line for every image of the inputs as it is scored; see `run_scoring`."""

    def write(answers: list[Answer]) -> None:
        stream.writelines(map(terminal_lines, answers))
        stream.flush()

    stream.write(f"{TERMINAL_HEADER}\n")
    # A bar among the lines of a table would be torn.
    sources = iterate_sources(inputs) if stream.isatty() else _with_progress_bar(inputs)
    return _consume(sources, scorer=scorer, write=write, resumed=0)


def _consume(
    sources: Iterable[ImageSource],
    *,
    scorer: Scorer,
    write: Callable[[list[Answer]], None],
    resumed: int,
) -> ScoringSummary:
    counts: Counter[ConclusionCode] = Counter()
    started = time.perf_counter()
    scores = scorer.score(sources)
    # Groups no larger than this are lost by a kill, and done again by --resume.
    while group := list(itertools.islice(scores, _ROWS_BETWEEN_WRITES)):
        write(group)
        counts.update(answer.conclusion.code for answer in group)
    return ScoringSummary(
        counts=dict(counts),
        resumed=resumed,
        seconds=time.perf_counter() - started,
        engine=scorer.engine,
    )


def _with_progress_bar(inputs: Sequence[str]) -> Iterator[ImageSource]:
    """The sources; on a terminal they are counted first, so that the bar knows the time left."""
    countable = sys.stderr.isatty() and STANDARD_INPUT not in inputs
    total = sum(1 for _ in iterate_sources(inputs)) if countable else None
    yield from progress(iterate_sources(inputs), description="Scoring", unit="image", total=total)
