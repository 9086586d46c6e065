"""Make what the checks of promises look at: archives, prepared data, runs, and what was said."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import DataAugmentation
import DataMerger
import DataSplitD1
import DataSplitD2
import DataUnZipper
import DataZipper
import ImageScoring
import ModelEvaluation
import ModelTraining
import MoveAugmentedImages

ROOT = Path(__file__).resolve().parents[2]
SPLITS = ("train", "validation", "test")
TUMOURS = ("benign", "malignant", "normal")
# The published sets, one image for 500: CIFAKE 100,000 + 20,000, Fake-or-Real 20,000, and as many
# augmented copies.
CIFAKE, FAKE_OR_REAL, COPIES = (100, 20), 20, 40
TRAINING = (
    *("--weights", "none", "--image-size", "32", "--batch-size", "16", "--precision", "float32"),
    *("--workers", "1", "--epochs", "3", "--set", "frozen_epochs=1", "patience=99"),
)


@dataclass
class World:
    """What was made, and what was said meanwhile."""

    folder: Path
    said: str = ""

    @property
    def run(self) -> Path:
        return self.folder / "models" / "two"

    @property
    def tumours(self) -> Path:
        return self.folder / "models" / "three"

    def metrics(self, run: Path | None = None) -> dict:
        return json.loads(((run or self.run) / "metrics.json").read_text())

    def history(self, run: Path | None = None) -> list[dict[str, str]]:
        with ((run or self.run) / "history.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def count(self, *parts: str) -> int:
        folder = self.folder.joinpath(*parts)
        return sum(path.is_file() for path in folder.rglob("*.png"))


def write_class(folder: Path, count: int, colour: tuple[int, int, int], seed: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i in range(count):
        pixels = generator.normal(colour, 40, (32, 32, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


def write_archives(archives: Path, raw: Path) -> None:
    """The two data sets as their owners publish them, and pictures of three categories."""
    red, blue, green = (200, 60, 60), (60, 60, 200), (60, 200, 60)
    for i, (name, colour) in enumerate((("FAKE", red), ("REAL", blue))):
        for j, (split, count) in enumerate(zip(("train", "test"), CIFAKE, strict=True)):
            write_class(raw / "cifake" / split / name, count, colour, 10 * i + j)
        flat = {"FAKE": "GeneratedArt", "REAL": "RealArt"}[name]
        write_class(raw / "fake-or-real" / flat, FAKE_OR_REAL, colour, 50 + i)
    for i, (name, colour) in enumerate(zip(TUMOURS, (red, blue, green), strict=True)):
        write_class(raw / "overlays" / name, 20 + 10 * i, colour, 70 + i)
    for source in ("cifake", "fake-or-real", "overlays"):
        assert (
            DataZipper.main([str(raw / source), "--output", str(archives / f"{source}.zip")]) == 0
        )


def prepare_data() -> None:
    """Every data script, in its order."""
    alone = ("--workers", "1")
    both = ["data/split/cifake", "data/split/fake-or-real"]
    steps = (
        (DataUnZipper, [*alone]),
        (DataSplitD1, ["data/raw/fake-or-real", *alone]),
        (DataSplitD2, ["data/raw/cifake", *alone]),
        (DataMerger, [*both, *alone]),
        (DataAugmentation, ["--total", str(COPIES), *alone]),
        (MoveAugmentedImages, []),
        (DataSplitD1, ["data/raw/overlays", "--output-dir", "tumours/split", *alone]),
        (DataMerger, ["tumours/split/overlays", "--output-dir", "tumours", *alone]),
    )
    for script, arguments in steps:
        assert script.main(arguments) == 0, script.__name__


def make_world(folder: Path) -> World:
    """Run every script from archives to a table of verdicts."""
    from real_vs_ai.networks import backbones
    from real_vs_ai.training import devices
    from tests.training.small_runs import like_resnet50, tiny_backbone

    made, said = World(folder), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(made.folder)
        patch.setattr("real_vs_ai.evaluation.figures.DOTS_PER_INCH", 40)
        patch.setattr(devices, "best_precision", lambda gpus: "float32")
        write_archives(made.folder / "data" / "archives", made.folder / "published")
        prepare_data()
        for name in ("resnet50", "resnet101"):
            patch.setitem(backbones.BACKBONES, name, like_resnet50(tiny_backbone))
        two = ("--run-name", "two", "--augmentation", "keras")
        assert ModelTraining.main([*TRAINING, *two]) == 0
        three = ("--run-name", "three", "--data", "tumours", "--recipe", "resnet101-multiclass")
        assert ModelTraining.main([*three, *TRAINING]) == 0
        evaluation = ("--model", "models/two", "--compare", "models/two", "--workers", "1")
        assert ModelEvaluation.main([*evaluation, "--export", "compact", "openvino"]) == 0
        unseen = made.folder / "unseen.png"
        shutil.copyfile(next((made.folder / "data" / "test" / "Fake").iterdir()), unseen)
        scoring = ["unseen.png", "--model", "models/two", "--output", "scores.csv"]
        assert ImageScoring.main([*scoring, "--workers", "1"]) == 0
        scoring = ["tumours/test", "--model", "models/three", "--output", "tumours/scores.csv"]
        assert ImageScoring.main([*scoring, "--workers", "1"]) == 0
    made.said = said.getvalue()
    return made


PROMISES: dict[str, Callable] = {}


def promise(*sentences: str) -> Callable[[Callable], Callable]:
    """Name the sentences that a check holds; it takes the world, or the fixtures in its names."""

    def name(check: Callable) -> Callable:
        PROMISES.update(dict.fromkeys(sentences, check))
        return check

    return name


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def words(path: str) -> str:
    """A document's text on one line."""
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())
