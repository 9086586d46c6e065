"""Plan the stages in order, and run them: each is a call of the function that its script calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.core.cli import command
from real_vs_ai.core.config import ARCHIVES_DIR, DATA_DIR, RAW_DIR, SEED, SPLIT_DIR
from real_vs_ai.core.parallel import Pool, available_workers
from real_vs_ai.core.reporting import format_table, keep_informed
from real_vs_ai.evaluation import EvaluationOptions, evaluate
from real_vs_ai.models.runs import released_run
from real_vs_ai.preparation.archives import extract_archives
from real_vs_ai.preparation.augmentation import augment
from real_vs_ai.preparation.demo import make_demo_archives
from real_vs_ai.preparation.layouts import (
    FLAT,
    TRAIN_TEST,
    LayoutError,
    find_layout,
    find_sources,
    raw_sources,
)
from real_vs_ai.preparation.merging import MergeOptions, merge_sources, move_augmented
from real_vs_ai.preparation.splitting import (
    SplitOptions,
    TrainTestOptions,
    describe_splits,
    split_sources,
)
from real_vs_ai.training import TrainingOptions, train
from real_vs_ai.training.command_line import read_recipe

N_STAGES = 8
# Small enough for two CPU cores to make the data, train and evaluate within minutes.
_DEMO_IMAGES = {"flat_images": 450, "train_images": 500, "test_images": 200}
_DEMO_AUGMENTED = 200


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        script: What does the same alone.
        work: Yields what to print.
        layout: The layout of a splitter's data sets; it has nothing to do where none has it.
    """

    number: int
    script: str
    work: Callable[[], Iterator[object]]
    layout: str = ""


@dataclass(frozen=True)
class PipelineOptions:
    """What the stages work on.

    Attributes:
        sources: Names of the data sets; none takes every one in data/.
        data_dir: Gets merged and augmented images; archives, raw and split images are in it too.
        overwrite: Make again what is there.
        total: Augmented copies to make, or None for the default.
    """

    training: TrainingOptions
    sources: tuple[str, ...] = ()
    data_dir: Path = DATA_DIR
    overwrite: bool = False
    total: int | None = None

    def folders(self, parent: Path, suffix: str = "") -> list[Path]:
        """The data sets in `archives`, `raw` or `split`."""
        return [self.data_dir / parent.name / f"{name}{suffix}" for name in self.sources]


@dataclass(frozen=True)
class PipelineResult:
    """How the stages went.

    Attributes:
        exit_code: 0, or that of the stage that failed.
        rows: (stage, script, outcome, seconds) of each stage that was reached.
    """

    exit_code: int
    rows: tuple[tuple[int, str, str, float], ...]

    def __str__(self) -> str:
        rows = [
            (number, script, outcome, f"{took:.0f}") for number, script, outcome, took in self.rows
        ]
        return format_table(["stage", "script", "outcome", "seconds"], rows, title="The pipeline")


def plan_stages(options: PipelineOptions) -> list[Stage]:
    """The eight stages, from archives to an evaluated model."""
    pool, overwrite = Pool(available_workers()), options.overwrite
    raw_dir, split_dir = (options.data_dir / folder.name for folder in (RAW_DIR, SPLIT_DIR))
    trained: list[Path] = []

    def unpack() -> Iterator[object]:
        archives = options.folders(ARCHIVES_DIR, ".zip")
        yield from extract_archives(archives, output_dir=raw_dir, overwrite=overwrite, pool=pool)

    def split_flat() -> Iterator[object]:
        yield from _split(options, FLAT, SplitOptions(overwrite=overwrite), split_dir)

    def split_train_test() -> Iterator[object]:
        yield from _split(options, TRAIN_TEST, TrainTestOptions(overwrite=overwrite), split_dir)

    def merge() -> Iterator[object]:
        yield merge_sources(
            options.folders(SPLIT_DIR),
            output_dir=options.data_dir,
            options=MergeOptions(overwrite=overwrite),
        )

    def make_copies() -> Iterator[object]:
        yield augment(
            options.data_dir,
            total=options.total,
            copies=None,
            seed=SEED,
            overwrite=overwrite,
            pool=pool,
        )

    def move_copies() -> Iterator[object]:
        yield move_augmented(options.data_dir)

    def learn() -> Iterator[object]:
        done = train(options.training)
        trained.append(done.run.path)
        yield done

    def measure() -> Iterator[object]:
        # What stage 7 made; the default model where that did not run.
        model = trained[-1] if trained else None
        yield evaluate(EvaluationOptions(model=model, data=options.training.data))[0]

    return [
        Stage(1, "DataUnZipper", unpack),
        Stage(2, "DataSplitD1", split_flat, FLAT),
        Stage(3, "DataSplitD2", split_train_test, TRAIN_TEST),
        Stage(4, "DataMerger", merge),
        Stage(5, "DataAugmentation", make_copies),
        Stage(6, "MoveAugmentedImages", move_copies),
        Stage(7, "ModelTraining", learn),
        Stage(8, "ModelEvaluation", measure),
    ]


def _split(
    options: PipelineOptions, kind: str, how: SplitOptions | TrainTestOptions, output_dir: Path
) -> Iterator[object]:
    folders = options.folders(RAW_DIR)
    layouts = find_sources([f for f in folders if find_layout(f).kind == kind], kind=kind)
    yield describe_splits(split_sources(layouts, output_dir=output_dir, options=how))


def demo_options(*, data_dir: Path, models_dir: Path, run_name: str) -> PipelineOptions:
    """What the stages work on in the embedded demo, which makes everything again each time.

    Args:
        data_dir: Gets archives, raw, split, augmented and merged images of the demo.
        models_dir: Gets the run folder.
    """
    released = released_run(models_dir)
    folders = {"data": data_dir, "models_dir": models_dir, "run_name": run_name}
    weights = str(released.model) if released else "none"
    fields = read_recipe("demo") | folders | {"weights": weights, "recipe": "demo"}
    archives = (data_dir / ARCHIVES_DIR.name).glob("*.zip")
    return PipelineOptions(
        TrainingOptions(**fields, command=("RunPipeline.py", "--demo")),
        sources=tuple(sorted(path.stem for path in archives)),
        data_dir=data_dir,
        overwrite=True,
        total=_DEMO_AUGMENTED,
    )


def make_demo_data(data_dir: Path) -> None:
    """Make the demo's archives in `<data_dir>/archives`."""
    make_demo_archives(data_dir / ARCHIVES_DIR.name, seed=SEED, **_DEMO_IMAGES)


def run_stages(
    stages: Sequence[Stage], *, raw_dir: Path, say: Callable[[str], None]
) -> PipelineResult:
    """Run each stage; the first that fails ends it.

    Args:
        raw_dir: Where the unpacked data sets are, to tell which splitters have work.
        say: Receives the lines that announce stages.
    """
    rows = []
    for stage in stages:
        title = f"{stage.number}/{N_STAGES} {stage.script}.py"
        if not _has_work(stage, raw_dir):
            say(f"\n[{title}]: no data set has its layout.")
            rows.append((stage.number, stage.script, "nothing to do", 0.0))
            continue
        say(f"\n[{title}]")
        start = time.perf_counter()
        with keep_informed(title):
            code = _run(stage)
        took = time.perf_counter() - start
        rows.append((stage.number, stage.script, "failed" if code else "done", took))
        if code:
            say(
                f"Stage {stage.number} failed. Fix the problem, then resume with "
                f"--from {stage.number}."
            )
            return PipelineResult(code, tuple(rows))
    return PipelineResult(0, tuple(rows))


@command
def _run(stage: Stage) -> None:
    for text in stage.work():
        print(text, flush=True)


def _has_work(stage: Stage, raw_dir: Path) -> bool:
    """Whether a splitter has a data set to split; when none fits at all, it is to say so itself."""
    if not stage.layout:
        return True
    kinds = set()
    for folder in raw_sources(raw_dir):
        try:
            kinds.add(find_layout(folder).kind)
        except LayoutError:
            continue
    return stage.layout in kinds or not kinds
