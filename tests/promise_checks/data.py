"""What the descriptions promise of the project, its data and their preparation."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections import Counter

import numpy as np
from PIL import Image

import DataDeleter
from real_vs_ai.training.command_line import parse_training_options
from tests.promise_checks.world import COPIES, ROOT, SPLITS, TUMOURS, World, promise, readme


@promise(
    "0: a short description and an overview of purpose and main features",
    "0: installation with all dependencies",
    "0: usage with examples",
    "0: the files and directories, important ones highlighted",
)
def check_readme(world):
    text = readme()
    for part in ("pip install -r requirements.txt", "streamlit run App.py", "ImageScoring.py"):
        assert part in text
    assert len(re.findall(r"^\| .*`\w+\.py`", text, re.MULTILINE)) >= 13


@promise("1: the scripts by their names, MoveAugmentedImages.py to ModelTraining.py")
def check_scripts(world):
    scripts = (
        *("MoveAugmentedImages", "App", "DataAugmentation", "DataDeleter", "DataMerger"),
        *("DataSplitD1", "DataSplitD2", "DataUnZipper", "DataZipper", "ModelTraining"),
    )
    assert all((ROOT / f"{name}.py").is_file() for name in scripts)
    assert all(f"`{name}.py`" in readme() for name in scripts)


@promise(
    "0, 1, 2: TensorFlow, NumPy, Keras, Matplotlib and Streamlit, free and open-source",
    "2: an environment of established Python libraries at no cost",
)
def check_libraries(world):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = (ROOT / "requirements-app.txt").read_text(encoding="utf-8")
    needed += "\n".join(project["project"]["optional-dependencies"]["training"])
    for name in ("tensorflow", "numpy", "keras", "matplotlib", "streamlit"):
        assert re.search(rf"^{name}==", needed, re.MULTILINE), name
    assert (ROOT / "LICENSE").is_file()


@promise("2: runs on a personal laptop, without special hardware")
def check_processor(world):
    config = json.loads((world.run / "config.json").read_text())
    assert "CPU" in config["device"] or "cpu" in config["device"].lower()


# Data


@promise("1: CIFAKE and the Fake or Real competition data, with links and citations")
def check_data_sources(world):
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for part in (
        "kaggle.com/datasets/birdy654/cifake-real-and-ai-generated-synthetic-images",
        "kaggle.com/datasets/kidonpark1023/fake-or-real-dataset",
        "Bird",
        "Krizhevsky",
    ):
        assert part in text
    assert "CIFAKE: Bird, J. J. and Lotfi, A. (2024)" in (world.run / "MODEL_CARD.md").read_text()


@promise("1: 114,000 images to train, 23,000 to validate and 23,000 to test, in two classes")
def check_counts(world):
    found = [world.count("data", split) * 500 for split in SPLITS]
    assert found == [114_000, 23_000, 23_000]


@promise(
    "1: data/{train,validation,test}/{Fake,Real}",
    "2: training, validation and test sets in a structured directory format",
    "3: binary images, each of one of two classes, curated and pre-processed alike",
)
def check_folders(world):
    for split in SPLITS:
        names = {path.name for path in (world.folder / "data" / split).iterdir()}
        assert names == {"Fake", "Real"}
        counts = [world.count("data", split, name) for name in ("Fake", "Real")]
        assert counts[0] == counts[1] > 0


@promise("1: DataSplitD1.py splits RealArt/ and GeneratedArt/ into training, validation and test")
def check_first_split(world):
    split = world.folder / "data" / "split" / "fake-or-real"
    found = [world.count("data", "split", "fake-or-real", name) for name in SPLITS]
    assert found == [28, 6, 6]
    assert all((split / name / label).is_dir() for name in SPLITS for label in ("Fake", "Real"))


@promise("1: DataSplitD2.py makes validation of Train/ and leaves Test/ as it is")
def check_second_split(world):
    assert [world.count("data", "split", "cifake", name) for name in SPLITS] == [160, 40, 40]


@promise("1: archives are unpacked, data sets merged, folders packed and prepared data deleted")
def check_data_scripts(world):
    assert (world.folder / "data" / "raw" / "cifake" / "train" / "FAKE").is_dir()
    assert (world.folder / "data" / "archives" / "cifake.zip").stat().st_size > 1000
    sources = Counter(row["source"] for row in read_manifest(world))
    assert set(sources) == {"cifake", "fake-or-real"}
    assert DataDeleter.parse_args(["--yes"]).yes


def read_manifest(world: World) -> list[dict[str, str]]:
    with (world.folder / "data" / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@promise(
    "0, 1, 2, 4: rotation, shifting, shearing, zooming and horizontal flipping",
    "2: unique augmentation strategies",
    "4: augmentation increases the diversity of the training data",
)
def check_augmentation(world):
    from real_vs_ai.perturbations.warps import STANDARD_RANGES

    assert all(vars(STANDARD_RANGES)[n] for n in ("rotation", "shift", "shear", "zoom", "flip"))
    copies = [row for row in read_manifest(world) if "__augmented" in row["path"]]
    assert len(copies) == COPIES and all(row["split"] == "train" for row in copies)
    copied, original = (
        np.asarray(Image.open(world.folder / "data" / name), dtype=float)
        for name in (copies[0]["path"], copies[0]["origin"])
    )
    assert copied.shape == original.shape and np.abs(copied - original).mean() > 1


@promise("0, 1, 2: Keras' ImageDataGenerator augments the training images")
def check_generator(world):
    from real_vs_ai.training.batches import draw_seeds, warp_by_keras

    options = json.loads((world.run / "config.json").read_text())["options"]
    assert options["augmentation"] == "keras"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    assert (warp_by_keras(pixels, seeds=draw_seeds(2, (1, 1))) != pixels).mean() > 0.5


@promise(
    "2, 4: images are resized to 224 × 224, what the network takes, and normalised",
    "4: overlays are collected from a folder for each category",
)
def check_resizing(world, resnet101):
    assert parse_training_options([], description="test").image_size == 224
    assert resnet101.get_layer("preprocessing").offset == [-123.68, -116.779, -103.939]
    assert {path.name for path in (world.folder / "data/raw/overlays").iterdir()} == set(TUMOURS)


@promise("4: splitting maintains the distribution of the classes")
def check_stratified(world):
    shares = {"train": 0.7, "validation": 0.15, "test": 0.15}
    for split, share in shares.items():
        for i, name in enumerate(TUMOURS):
            assert abs(world.count("tumours", split, name) - share * (20 + 10 * i)) <= 1
