"""Plan the stages in order, and run each script with its arguments.

The scripts stay the only place that knows what a stage does; this module only calls their mains.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.config import ARCHIVES_DIR, RAW_DIR, SEED, SPLIT_DIR
from real_vs_ai.preparation.demo import make_demo_archives
from real_vs_ai.preparation.layouts import SCRIPT_BY_LAYOUT, LayoutError, find_layout, raw_sources
from real_vs_ai.reporting import format_table, keep_informed
from real_vs_ai.runs import released_run

_SCRIPTS = (
    *("DataUnZipper", "DataSplitD1", "DataSplitD2", "DataMerger", "DataAugmentation"),
    *("MoveAugmentedImages", "ModelTraining", "ModelEvaluation"),
)
N_STAGES = len(_SCRIPTS)
# Each splitter is passed over when no data set has its layout.
_LAYOUTS = {script: layout for layout, script in SCRIPT_BY_LAYOUT.items()}
# Small enough for two CPU cores to make the data, train and evaluate within minutes.
_DEMO_IMAGES = {"flat_images": 450, "train_images": 500, "test_images": 200}
_DEMO_AUGMENTED = 200


@dataclass(frozen=True)
class Stage:
    """One script with its arguments."""

    number: int
    script: str
    arguments: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        return " ".join((f"{self.script}.py", *self.arguments))


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


def plan_pipeline(*, first: int, last: int, training_arguments: Sequence[str]) -> list[Stage]:
    """The stages on the default folders, from data/archives to an evaluated model."""
    return _stages({"ModelTraining": tuple(training_arguments)})[first - 1 : last]


def _stages(arguments: Mapping[str, tuple[str, ...]]) -> list[Stage]:
    numbered = enumerate(_SCRIPTS, start=1)
    return [Stage(number, script, arguments.get(script, ())) for number, script in numbered]


def plan_demo(*, data_dir: Path, models_dir: Path, run_name: str) -> list[Stage]:
    """The stages on the embedded demo, which has its own folders and makes them again each time.

    Args:
        data_dir: Gets archives, raw, split, augmented and merged images of the demo.
        models_dir: Gets the run folder.
    """
    archives, raw, split = (data_dir / folder.name for folder in (ARCHIVES_DIR, RAW_DIR, SPLIT_DIR))
    sources = sorted(path.stem for path in archives.glob("*.zip"))
    flat, train_test = (str(raw / source) for source in sources)
    released = released_run(models_dir)
    weights = str(released.model) if released else "none"
    archive_names = (str(archives / f"{source}.zip") for source in sources)
    split_names = (str(split / source) for source in sources)
    to_split = (f"--output-dir={split}", "--overwrite")
    in_data = f"--data-dir={data_dir}"
    folders = (f"--data={data_dir}", f"--models-dir={models_dir}", f"--run-name={run_name}")
    return _stages(
        {
            "DataUnZipper": (*archive_names, f"--output-dir={raw}", "--overwrite"),
            "DataSplitD1": (flat, *to_split),
            "DataSplitD2": (train_test, *to_split),
            "DataMerger": (*split_names, f"--output-dir={data_dir}", "--overwrite"),
            "DataAugmentation": (in_data, f"--total={_DEMO_AUGMENTED}", "--overwrite"),
            "MoveAugmentedImages": (in_data,),
            "ModelTraining": (*folders, f"--weights={weights}", "--recipe=demo"),
            "ModelEvaluation": (f"--model={models_dir / run_name}", f"--data={data_dir}"),
        }
    )


def make_demo_data(data_dir: Path) -> None:
    """Make the demo's archives in `<data_dir>/archives`."""
    make_demo_archives(data_dir / ARCHIVES_DIR.name, seed=SEED, **_DEMO_IMAGES)


def run_stages(
    stages: Sequence[Stage], *, raw_dir: Path, say: Callable[[str], None]
) -> PipelineResult:
    """Run each stage's script; the first that fails ends it.

    Args:
        raw_dir: Where the unpacked data sets are, to tell which splitters have work.
        say: Receives the lines that announce stages.
    """
    rows = []
    for stage in stages:
        if not _has_work(stage, raw_dir):
            say(f"\n[{stage.number}/{N_STAGES}] {stage.script}.py: no data set has its layout.")
            rows.append((stage.number, stage.script, "nothing to do", 0.0))
            continue
        say(f"\n[{stage.number}/{N_STAGES}] python {stage.command}")
        start = time.perf_counter()
        with keep_informed(f"{stage.number}/{N_STAGES} {stage.script}.py"):
            code = importlib.import_module(stage.script).main(list(stage.arguments))
        took = time.perf_counter() - start
        rows.append((stage.number, stage.script, "failed" if code else "done", took))
        if code:
            say(
                f"Stage {stage.number} failed. Fix the problem, then resume with "
                f"--from {stage.number}."
            )
            return PipelineResult(code, tuple(rows))
    return PipelineResult(0, tuple(rows))


def _has_work(stage: Stage, raw_dir: Path) -> bool:
    """Whether a splitter has a data set to split; when none fits at all, it is to say so itself."""
    layout = _LAYOUTS.get(f"{stage.script}.py")
    if layout is None:
        return True
    kinds = set()
    for folder in raw_sources(raw_dir):
        try:
            kinds.add(find_layout(folder).kind)
        except LayoutError:
            continue
    return layout in kinds or not kinds
