"""Run a scoring job: read inputs, write a table or print it, and summarise.

options = ScoringOptions(model=None, engine=None, precision=None, workers=2, …)
summary = run_scoring(["photos"], options=options, output=Path("scores.csv"), …)
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TextIO

from real_vs_ai.errors import InputError
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.parallel import join_cluster, worker_environment
from real_vs_ai.reporting import format_table, plural, progress
from real_vs_ai.serving.conclusion import TITLES, ConclusionCode
from real_vs_ai.serving.detector import Detector, ImageJudge
from real_vs_ai.serving.image_sources import (
    STANDARD_INPUT,
    ImageSource,
    are_single_files,
    expand_inputs,
    iterate_sources,
    why_missing,
)
from real_vs_ai.serving.judge import Answer, ServedModel, judge_files, served_models
from real_vs_ai.serving.score_table import (
    TERMINAL_HEADER,
    ScoreFile,
    check_output,
    score_columns,
    score_row,
    terminal_lines,
)

# As an output: JSON lines, for another program to read.
STANDARD_OUTPUT = Path("-")
_ROWS_BETWEEN_WRITES = 64
# As many images on the terminal are judged one by one: the form for batches need not be compiled.
_FEW_IMAGES = 4
_CORES_PER_TASK = 2
# Large enough that a task on a cluster costs little compared with its images, small enough to
# repeat.
_IMAGES_PER_TASK = 256
_RETRIES = 10


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


@dataclass(frozen=True)
class Scorer:
    """What turns sources into answers, on this machine or on a cluster.

    Attributes:
        models: Those that answer together.
        engine: What people read: "openvino (bf16)".
        score: Gives one answer for each source, in order.
    """

    models: tuple[ServedModel, ...]
    engine: str
    score: Callable[[Iterable[ImageSource]], Iterator[Answer]]

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
        resume: Leave out what an unfinished output already has, and add the rest.
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
    if output is None or to_pipe:
        few = not to_pipe and len(inputs) <= _FEW_IMAGES and are_single_files(inputs)
        scorer = open_scorer(options, for_batches=not few)
        return score_to_stream(inputs, scorer=scorer, stream=sys.stdout, as_json=to_pipe)
    # Before the model is opened: that takes seconds.
    check_output(output, resume=resume, overwrite=overwrite)
    return score_to_file(inputs, scorer=open_scorer(options), output=output, resume=resume)


def open_scorer(options: ScoringOptions, *, for_batches: bool = True) -> Scorer:
    """Open the model on this machine, or on a Ray cluster, which always works in batches.

    Raises:
        FileNotFoundError: There is no such model.
        InputError: It cannot be opened with these options.
    """
    models = served_models(options.model)
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


def _describe_engine(detector: Detector) -> str:
    return f"{detector.engine.name} ({detector.engine.precision})"


def local_scorer(detector: ImageJudge, *, workers: int) -> Scorer:
    """Score on this machine; see `judge_files`."""
    return Scorer(
        tuple(one.model for one in detector.detectors),
        " and ".join(dict.fromkeys(map(_describe_engine, detector.detectors))),
        partial(judge_files, detector=detector, workers=workers),
    )


def _open_on_ray(models: tuple[ServedModel, ...], options: ScoringOptions) -> Scorer:
    cores = join_cluster()
    # A folder stands for several models; workers are started in folders of their own.
    first = models[0].path
    source = (first.parent if len(models) > 1 else first).resolve()
    precision = options.precision or "each machine's own precision"
    score = partial(_score_on_ray, model=source, precision=options.precision, cores=cores)
    return Scorer(models, f"ray ({precision})", score)


def _score_on_ray(
    sources: Iterable[ImageSource], *, model: Path, precision: str | None, cores: list[int]
) -> Iterator[Answer]:
    """The answers for the sources, in order; see `Scorer.score`.

    Every machine must see the images and the model under the same paths. Ray runs the work of a
    worker that died again on another one; nothing is lost or doubled.

    Args:
        model: An `.h5` file, or a folder with several models.
        cores: Of each machine of the cluster that `parallel.join_cluster` joined.
    """
    import ray

    # A task that asks for more than the smallest machine has would wait forever there.
    share = min([_CORES_PER_TASK, *filter(None, cores)])
    task = ray.remote(
        num_cpus=share, max_retries=_RETRIES, runtime_env={"env_vars": worker_environment(share)}
    )(_score_chunk)
    sources, waiting = iter(sources), deque()
    while chunk := list(itertools.islice(sources, _IMAGES_PER_TASK)):
        # Workers are started in folders of their own; the names in the table stay as they are.
        found = [replace(source, file=str(Path(source.file).resolve())) for source in chunk]
        waiting.append(task.remote(model, found, workers=share, precision=precision))
        if len(waiting) > 2 * max(1, sum(cores) // share):
            yield from ray.get(waiting.popleft())
    while waiting:
        yield from ray.get(waiting.popleft())


def _score_chunk(
    model: Path, sources: list[ImageSource], *, workers: int, precision: str | None
) -> list[Answer]:
    """Runs on a worker, which keeps the opened model for its next chunk."""
    return list(judge_files(sources, detector=_opened(model, precision), workers=workers))


@lru_cache(maxsize=1)
def _opened(model: Path, precision: str | None) -> ImageJudge:
    return Detector.open(model, precision=precision, for_batches=True)


def score_to_file(
    inputs: Sequence[str], *, scorer: Scorer, output: Path, resume: bool
) -> ScoringSummary:
    """Write a row for every image of the inputs; see `run_scoring`."""
    columns = score_columns(scorer.metadata)
    about = [model.describe() for model in scorer.models]
    with ScoreFile(
        output, columns=columns, model=scorer.identity, about=about, resume=resume
    ) as file:
        sources = (s for s in _with_progress_bar(inputs) if not file.has(s.name))

        def write(answers: list[Answer]) -> None:
            file.append(score_row(answer, scorer.metadata) for answer in answers)

        return _consume(sources, scorer=scorer, write=write, resumed=file.resumed_rows)


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
    sources = iterate_sources(inputs) if in_sight else _with_progress_bar(inputs)
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
