"""Run a scoring job: read inputs, write a table or print it, and summarise."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TextIO

from real_vs_ai.core.config import MODELS_DIR
from real_vs_ai.core.errors import InputError, print_error
from real_vs_ai.core.parallel import available_workers
from real_vs_ai.core.ray_cluster import join_cluster, map_on_ray
from real_vs_ai.core.reporting import format_table, plural, progress
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.runs import DEFAULT_FILE, chosen_run
from real_vs_ai.serving.detector import Detector, ImageJudge
from real_vs_ai.serving.image_sources import (
    STANDARD_INPUT,
    ImageSource,
    are_single_files,
    describe_left_out,
    expand_inputs,
    iterate_sources,
    require_images,
    why_missing,
)
from real_vs_ai.serving.judge import Answer, judge_files
from real_vs_ai.serving.score_file import ScoreFile, check_output
from real_vs_ai.serving.score_table import TERMINAL_HEADER, score_columns, score_row, terminal_lines
from real_vs_ai.serving.served_model import ServedModel, served_models
from real_vs_ai.verdicts.conclusion import TITLES, ConclusionCode

# As an output: JSON lines, for another program to read.
STANDARD_OUTPUT = Path("-")
_ROWS_BETWEEN_WRITES = 64
# As many images on the terminal are judged one by one: the form for batches need not be compiled.
_FEW_IMAGES = 4
_CORES_PER_TASK = 2
# Large enough that a task on a cluster costs little compared with its images, small enough to
# repeat.
_IMAGES_PER_TASK = 256


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How images are scored.

    Attributes:
        model: As in `Detector.open`, with engine and precision.
        cluster: "ray" spreads the work over a Ray cluster; None keeps it on this machine.
        workers: Threads that decode, on each machine.
    """

    model: Path | None = None
    engine: str | None = None
    cluster: str | None = None
    precision: str | None = None
    workers: int = available_workers()


@dataclass(frozen=True)
class Scorer:
    """What turns sources into answers, on this machine or on a cluster.

    Attributes:
        models: Those that answer together.
        engine: What people read: "openvino (bf16)".
        score: Gives one answer for each source, in order.
        from_file: As of `ScoringSummary`.
    """

    models: tuple[ServedModel, ...]
    engine: str
    score: Callable[[Iterable[ImageSource]], Iterator[Answer]]
    from_file: str = ""

    @property
    def metadata(self) -> ModelMetadata:
        """Of the first model; all have its classes."""
        return self.models[0].metadata

    @property
    def identity(self) -> str:
        """Differs whenever the scores may: model content, engine, precision."""
        return f"{'+'.join(model.sha256[:16] for model in self.models)} {self.engine}"


@dataclass(frozen=True)
class ScoringSummary:
    """What a scoring did.

    Attributes:
        counts: Images by conclusion.
        resumed: Images that the table had before.
        seconds: From the first image to the last.
        left_out: Files that are no images by their names, by their endings.
        judged: Images by the model that judged them; each that answers has a number.
        from_file: The file that names the default model, where that one answered; "" otherwise.
    """

    counts: dict[ConclusionCode, int]
    resumed: int
    seconds: float
    engine: str
    left_out: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    from_file: str = ""

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
        table = format_table(["conclusion", "images", "share"], rows, title=title)
        lines = [table if rows else title]
        if self.left_out:
            lines.append(f"Left out: {describe_left_out(self.left_out)}")
        if self.resumed:
            lines.append(f"{plural(self.resumed, 'image')} had been scored before")
        return "\n".join([*lines, self._models])

    @property
    def _models(self) -> str:
        """Which models answered, and for how many pictures."""
        answered = self.judged.most_common() if self.judged.total() else []
        parts = [
            f"{plural(count, 'picture') if index == 0 else count} checked by {name}"
            for index, (name, count) in enumerate((n, c) for n, c in answered if c)
        ]
        said = ", ".join(parts) or f"No picture could be checked by {' or '.join(self.judged)}"
        return f"{said} ({self.from_file} names it)" if self.from_file else said


def run_scoring(
    inputs: Sequence[str],
    *,
    options: ScoringOptions,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> ScoringSummary:
    """Score every image of the inputs to a file, or to standard output.

    Args:
        inputs: See `iterate_sources`.
        output: `.csv`, `.json`, `.jsonl` or `.parquet`; "-" for JSON lines on standard output,
            None for a table there that people read.
        resume: Leave out what an unfinished output already has, and add the rest.
        overwrite: Replace an existing output.

    Raises:
        FileExistsError: The output exists and neither `resume` nor `overwrite` is given.
        FileNotFoundError: The model, or every input, is not there.
        InputError: The inputs hold no image, or the disk is full.
        ValueError: An input or the output is of no known kind, or options do not go together.
    """
    inputs = expand_inputs(inputs)
    to_pipe = output == STANDARD_OUTPUT
    if (output is None or to_pipe) and (resume or overwrite):
        raise InputError("Expected --output FILE with --resume and --overwrite, found none.")
    for text in inputs:
        if text != STANDARD_INPUT and not Path(text).exists():
            print_error(f"{why_missing(text)} The others are scored.")
    require_images(inputs)
    if output is None or to_pipe:
        few = not to_pipe and len(inputs) <= _FEW_IMAGES and are_single_files(inputs)
        scorer = open_scorer(options, for_batches=not few)
        return score_to_stream(inputs, scorer=scorer, stream=sys.stdout, as_json=to_pipe)
    # Before the model is opened: that takes seconds.
    leave = {"resume": resume, "overwrite": overwrite}
    check_output(output, **leave)
    return score_to_file(inputs, scorer=open_scorer(options), output=output, **leave)


def open_scorer(options: ScoringOptions, *, for_batches: bool = True) -> Scorer:
    """Open the model on this machine, or on a Ray cluster, which always works in batches.

    Raises:
        FileNotFoundError: There is no such model.
        InputError: It cannot be opened with these options.
    """
    models = served_models(options.model)
    by_choice = options.model is None and chosen_run()
    scorer = _open_scorer(models, options, for_batches=for_batches)
    return replace(scorer, from_file=str(MODELS_DIR / DEFAULT_FILE) if by_choice else "")


def _open_scorer(
    models: tuple[ServedModel, ...], options: ScoringOptions, *, for_batches: bool
) -> Scorer:
    try:
        if options.cluster:
            return _open_on_ray(models, options)
        detector = Detector.open(
            options.model,
            engine=options.engine,
            precision=options.precision,
            for_batches=for_batches,
        )
    # OpenVINO, the conversion and Ray say so of what they cannot run.
    except RuntimeError as error:
        names = " and ".join(str(model.path) for model in models)
        raise InputError(f"{names} cannot be used here: {error}") from error
    for note in dict.fromkeys(one.engine.note for one in detector.detectors if one.engine.note):
        print(note, file=sys.stderr)
    return local_scorer(detector, workers=options.workers)


def local_scorer(detector: ImageJudge, *, workers: int) -> Scorer:
    """Score on this machine; see `judge_files`."""
    engines = [one.engine for one in detector.detectors]
    return Scorer(
        tuple(one.model for one in detector.detectors),
        " and ".join(dict.fromkeys(f"{e.name} ({e.precision})" for e in engines)),
        partial(judge_files, detector=detector, workers=workers),
    )


def _open_on_ray(models: tuple[ServedModel, ...], options: ScoringOptions) -> Scorer:
    join_cluster()
    # A folder stands for several models; workers are started in folders of their own.
    first = models[0].path
    source = (first.parent if len(models) > 1 else first).resolve()
    precision = options.precision or "each machine's own precision"
    score = partial(_score_on_ray, model=source, precision=options.precision)
    return Scorer(models, f"ray ({precision})", score)


def _score_on_ray(
    sources: Iterable[ImageSource], *, model: Path, precision: str | None
) -> Iterator[Answer]:
    """The answers for the sources, in order; see `Scorer.score`.

    Args:
        model: An `.h5` file, or a folder with several models.
    """
    # The names in the table stay as they are.
    found = (replace(source, file=str(Path(source.file).resolve())) for source in sources)
    chunks = iter(lambda: list(itertools.islice(found, _IMAGES_PER_TASK)), [])
    answers = map_on_ray(_score_chunk, chunks, model, precision, cores=_CORES_PER_TASK)
    yield from itertools.chain.from_iterable(answers)


def _score_chunk(sources: list[ImageSource], model: Path, precision: str | None) -> list[Answer]:
    """Runs on a worker, which keeps the opened model for its next chunk."""
    workers = int(os.environ["REAL_VS_AI_THREADS"])
    return list(judge_files(sources, detector=_opened(model, precision), workers=workers))


@lru_cache(maxsize=1)
def _opened(model: Path, precision: str | None) -> ImageJudge:
    return Detector.open(model, precision=precision, for_batches=True)


def score_to_file(
    inputs: Sequence[str], *, scorer: Scorer, output: Path, resume: bool, overwrite: bool
) -> ScoringSummary:
    """Write a row for every image of the inputs; see `run_scoring`."""
    columns = score_columns(scorer.metadata)
    about = [model.describe() for model in scorer.models]
    left_out: Counter[str] = Counter()
    with ScoreFile(
        output,
        columns=columns,
        model=scorer.identity,
        about=about,
        resume=resume,
        overwrite=overwrite,
    ) as file:
        sources = (s for s in _with_progress_bar(inputs, left_out) if not file.has(s.name))

        def write(answers: list[Answer]) -> None:
            file.append(score_row(answer, scorer.metadata) for answer in answers)

        return _consume(
            sources, scorer=scorer, write=write, left_out=left_out, resumed=file.resumed_rows
        )


def score_to_stream(
    inputs: Sequence[str], *, scorer: Scorer, stream: TextIO, as_json: bool
) -> ScoringSummary:
    """Print each image as it is scored, as a line of JSON or for people; see `run_scoring`."""

    def write(answers: list[Answer]) -> None:
        if as_json:
            rows = (score_row(answer, scorer.metadata) for answer in answers)
            stream.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        else:
            stream.writelines(map(terminal_lines, answers))
        stream.flush()

    stream.write("" if as_json else f"{TERMINAL_HEADER}\n")
    # A bar among the lines of a table would be torn.
    in_sight = stream.isatty() and not as_json
    left_out: Counter[str] = Counter()
    if in_sight:
        sources = iterate_sources(inputs, left_out=left_out)
    else:
        sources = _with_progress_bar(inputs, left_out)
    return _consume(sources, scorer=scorer, write=write, left_out=left_out, resumed=0)


def _consume(
    sources: Iterable[ImageSource],
    *,
    scorer: Scorer,
    write: Callable[[list[Answer]], None],
    left_out: Counter[str],
    resumed: int,
) -> ScoringSummary:
    counts: Counter[ConclusionCode] = Counter()
    judged: Counter[str] = Counter({model.name: 0 for model in scorer.models})
    started = time.perf_counter()
    scores = scorer.score(sources)
    # Groups no larger than this are lost by a kill, and done again by --resume.
    while group := list(itertools.islice(scores, _ROWS_BETWEEN_WRITES)):
        write(group)
        counts.update(answer.conclusion.code for answer in group)
        judged.update(answer.verdict.model for answer in group if answer.verdict)
    return ScoringSummary(
        counts=dict(counts),
        resumed=resumed,
        seconds=time.perf_counter() - started,
        engine=scorer.engine,
        left_out=left_out,
        judged=judged,
        from_file=scorer.from_file,
    )


def _with_progress_bar(inputs: Sequence[str], left_out: Counter[str]) -> Iterator[ImageSource]:
    """The sources; on a terminal they are counted first, so that the bar knows the time left."""
    countable = sys.stderr.isatty() and STANDARD_INPUT not in inputs
    total = sum(1 for _ in iterate_sources(inputs)) if countable else None
    sources = iterate_sources(inputs, left_out=left_out)
    yield from progress(sources, description="Scoring", unit="image", total=total)
