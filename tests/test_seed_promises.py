"""Every sentence of the five descriptions that this project is for holds, by what a run writes.

One world is made for all of them: archives, prepared data, a run of two classes and one of three.
A tiny network stands in for the ResNets where a run trains, and a whole ResNet101 is built once.
docs/promises.md lists the same promises with command and file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
import threading
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import DataAugmentation
import DataDeleter
import DataMerger
import DataSplitD1
import DataSplitD2
import DataUnZipper
import DataZipper
import ImageScoring
import ModelEvaluation
import ModelTraining
import MoveAugmentedImages
from real_vs_ai.training.command_line import parse_training_options

ROOT = Path(__file__).resolve().parents[1]
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


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from real_vs_ai.networks import backbones
    from real_vs_ai.training import devices
    from tests.training.small_runs import like_resnet50, tiny_backbone

    made, said = World(tmp_path_factory.mktemp("promises")), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(made.folder)
        patch.setattr("real_vs_ai.evaluation.figures.DOTS_PER_INCH", 40)
        patch.setattr(devices, "measure_learning", lambda *args, **options: 1e9)
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
    made.said = said.getvalue()
    return made


@pytest.fixture(scope="module")
def resnet101():
    """The network that ModelTraining.py trains without options, but for weights and size."""
    from real_vs_ai.networks.model import build_model

    arguments = ["--weights", "none", "--image-size", "32", "--set", "stem_stride=2"]
    options = parse_training_options(arguments, description="test")
    return build_model(options, class_names=("Fake", "Real"))


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


# What the descriptions say of the project as a whole


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
    from real_vs_ai.perturbations import STANDARD_RANGES

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


# Network


@promise(
    "0, 1, 4: a ResNet101 without its top, by transfer learning from pre-trained weights",
    "0, 1: GaussianNoise of 0.1",
    "0, 1, 2: GlobalAveragePooling2D",
    "0, 1: a Dense layer with ReLU and L2",
    "0, 1: Dropout of 0.4",
    "0, 1: softmax output",
)
def check_resnet101(world, resnet101):
    options = parse_training_options([], description="test")
    assert (options.backbone, options.weights) == ("resnet101", "imagenet")
    layers = {layer.name: layer for layer in resnet101.layers}
    blocks = {re.match(r"conv(\d)_block(\d+)", name)[0] for name in layers if "_block" in name}
    assert len(blocks) == 33 and "predictions" not in layers
    head = [type(layer).__name__ for layer in resnet101.layers if layer.name.startswith("head")]
    assert head == ["GaussianNoise", "GlobalAveragePooling2D", "Dense", "Dropout", "Dense"]
    assert layers["head_noise"].stddev == pytest.approx(0.1)
    dense = layers["head_dense"]
    assert dense.activation.__name__ == "relu" and float(dense.kernel_regularizer.l2) > 0
    assert layers["head_dropout"].rate == pytest.approx(0.4)
    assert layers["head_probabilities"].activation.__name__ == "softmax"


@promise(
    "2, 3: ResNet50 pre-trained on ImageNet as feature extractor, with residual blocks",
    "3: head of Average Pooling, Flatten, Dense of 256 with ReLU, Dropout of 50 %, softmax",
    "3: the base stays fixed first, then the entire model is fine-tuned",
)
def check_resnet50_two_stage(world):
    options = parse_training_options(["--recipe", "resnet50-two-stage"], description="test")
    assert (options.backbone, options.weights) == ("resnet50", "imagenet")
    assert (options.pooling, options.dense_units, options.dropout) == ("average-flatten", 256, 0.5)
    assert options.frozen_epochs > 0 and options.epochs > 0


@promise(
    "2: initial layers frozen; GlobalAveragePooling2D, Dropout and Dense layers added",
    "2: trained with frozen base first, then fine-tuned at lower learning rates",
    "2: regularisation techniques",
)
def check_stages(world):
    stages = [row["stage"] for row in world.history()]
    assert stages[0] == "frozen" and stages[-1] == "fine-tuning"
    trained = json.loads((world.run / "config.json").read_text())["options"]
    assert trained["fine_tune_learning_rate"] < trained["learning_rate"]
    options = parse_training_options(["--recipe", "resnet50-augmented"], description="test")
    assert (options.backbone, options.pooling) == ("resnet50", "global-average")
    assert options.fine_tune_learning_rate < options.learning_rate


@promise("2: other pre-trained models")
def check_backbones(world):
    from real_vs_ai.networks.backbones import BACKBONES

    assert {"resnet50", "resnet101", "resnet152", "efficientnet-lite0"} <= set(BACKBONES)


# Training


@promise("0, 1: Adam with PolynomialDecay", "2: learning-rate scheduling")
def check_schedule(world):
    import keras

    from real_vs_ai.training.compilation import WarmedPolynomialDecay, make_optimizer

    assert issubclass(WarmedPolynomialDecay, keras.optimizers.schedules.PolynomialDecay)
    schedule = WarmedPolynomialDecay(0.1, decay_steps=10, warmup_steps=0)
    assert isinstance(make_optimizer(schedule, fused=False), keras.optimizers.Adam)
    tuned = [row for row in world.history() if row["stage"] == "fine-tuning"]
    rates = [float(row["learning_rate"]) for row in tuned]
    assert rates == sorted(rates, reverse=True) and rates[0] > rates[-1]


@promise(
    "0, 1: StopTrainingOnValidationLoss stops when validation loss exceeds training loss",
    "0, 1: the weights of the epoch with the lowest validation loss are saved",
    "2, 4: early stopping; losses are monitored",
)
def check_stopping(world, tmp_path):
    import keras

    from real_vs_ai.training.callbacks import StopTrainingOnValidationLoss
    from real_vs_ai.training.options import plan_stages
    from real_vs_ai.training.run_state import Progress
    from tests.training.small_runs import learning_of

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    files = type("Files", (), {"best_weights": tmp_path / "best.weights.h5"})
    learning = learning_of(progress=Progress(batch_size=1), run=files)
    stop = StopTrainingOnValidationLoss(learning, plan_stages(learning.options)[0])
    stop.set_model(model)
    model.stop_training = False
    for epoch, (loss, val_loss) in enumerate([(0.9, 0.8), (0.7, 0.6), (0.5, 0.61)]):
        assert not model.stop_training
        model.set_weights([np.full((2, 1), epoch + 1.0)])
        stop.on_epoch_end(epoch, {"loss": loss, "val_loss": val_loss})
    assert model.stop_training and learning.progress.best_epoch == 2
    model.load_weights(files.best_weights)
    assert float(model.get_weights()[0][0, 0]) == 2
    assert learning.options.early_stopping > 0
    losses = [float(row["val_loss"]) for row in world.history()]
    kept = 1 + losses.index(min(losses))
    assert f"the weights of epoch {kept} kept" in world.said


@promise(
    "2: compiled with Adam, categorical cross-entropy and accuracy",
    "4: training and validation loss and accuracy are monitored",
)
def check_history(world):
    row = world.history()[0]
    assert {"loss", "val_loss", "accuracy", "val_accuracy"} <= row.keys()
    loop = (ROOT / "real_vs_ai" / "training" / "loop.py").read_text(encoding="utf-8")
    assert "keras.losses.CategoricalCrossentropy" in loop


# Evaluation


@promise(
    "0, 1, 2: loss and accuracy on the test set", "0, 1, 3: precision, recall and F1", "0, 1: AUC"
)
def check_metrics(world):
    test = world.metrics()["test"]
    names = ("loss", "accuracy", "precision", "recall", "roc_auc", "f1")
    assert all(0 <= test[name]["low"] <= test[name]["high"] for name in names)
    assert test["n"] == world.count("data", "test")
    row = world.history()[-1]
    assert {"precision", "recall", "auc", "f1", "val_f1"} <= row.keys()


@promise(
    "0, 1, 2, 4: the history of loss and accuracy is plotted with Matplotlib",
    "0, 1: the network is drawn by Keras' plot_model",
    "2: plots of the class distribution of the training and test data",
    "3, 4: confusion matrices",
    "3: ROC curves",
)
def check_figures(world):
    figures = {path.stem for path in (world.run / "figures").glob("*.png")}
    assert {"history", "class_distribution", "confusion_matrix", "roc"} <= figures
    if shutil.which("dot"):
        assert "network" in figures
    else:
        assert "install pydot" in world.said and "Graphviz" in world.said
    assert set(world.metrics()["images"]) == set(SPLITS)
    assert set(world.metrics()["sources"]["train"]["Fake"]) == {"cifake", "fake-or-real"}


@promise("2: an analysis of class distribution and potential biases")
def check_biases(world):
    card = (world.run / "MODEL_CARD.md").read_text()
    assert "## Data" in card and "## Confounds" in card
    assert set(world.metrics()["confound"]) == {"balanced_accuracy", "chance", "warning"}


@promise("0, 1: the trained model is saved as Keras HDF5")
def check_model_file(world):
    import keras

    model = keras.models.load_model(world.run / "model.h5")
    assert model.output_shape == (None, 2)
    assert (world.run / "exports" / "model.h5").is_file()


@promise("4: a saved model file, Resnet_fineTuning.pth")
def check_pth(world, resnet101, tmp_path):
    from real_vs_ai.evaluation.torch_state import state_of, write_torch

    state = state_of(resnet101)
    assert state["layer3.22.conv2.weight"].shape == (256, 256, 3, 3)
    torch = pytest.importorskip("torch", reason="the file is written by PyTorch, an extra")
    from real_vs_ai.evaluation.pth_loader import predict

    write_torch(resnet101, tmp_path / "Resnet_fineTuning.pth")
    state = torch.load(tmp_path / "Resnet_fineTuning.pth", weights_only=True)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(resnet101(pixels))
    assert predict(state, torch.from_numpy(pixels)).numpy() == pytest.approx(expected, abs=1e-4)


@promise(
    "4: three categories, benign, malignant and normal",
    "4: a fine-tuned ResNet101 for any number of classes",
    "4: accuracy, confusion matrix and a report with precision, recall and F1 of each class",
    "4: graphs of training and validation accuracy and loss, and a summary of the metrics",
)
def check_three_classes(world):
    metrics = world.metrics(world.tumours)
    assert metrics["class_names"] == list(TUMOURS)
    assert set(metrics["test"]["per_class"]["benign"]) >= {"precision", "recall", "f1"}
    report = (world.tumours / "classification_report.txt").read_text()
    assert all(name in report for name in (*TUMOURS, "precision", "recall", "f1-score"))
    figures = {path.stem for path in (world.tumours / "figures").glob("*.png")}
    assert {"history", "confusion_matrix"} <= figures
    assert {"precision", "recall", "f1", "val_f1"} <= world.history(world.tumours)[0].keys()
    recipe = parse_training_options(["--recipe", "resnet101-multiclass"], description="test")
    assert recipe.backbone == "resnet101" and recipe.frozen_epochs > 0


@promise("4: models are compared on the same metrics")
def check_comparison(world):
    assert world.metrics()["comparison"]["test"]["p_value"] == 1
    assert "McNemar" in world.said


@promise("3: robust performance with high accuracy", "4: images are classified with high accuracy")
def check_released(world):
    released = json.loads((ROOT / "models" / "released" / "metrics.json").read_text())
    assert released["test"]["accuracy"]["low"] > 0.98
    assert world.metrics()["test"]["accuracy"]["value"] > 0.9


@promise("3: code and trained models are available")
def check_trained_models(world):
    for name in ("model.h5", "photographs/model.h5", "MODEL_CARD.md"):
        assert (ROOT / "models" / "released" / name).is_file()


# Use


@promise(
    "2: predictions for external pictures",
    "4: the saved model predicts later",
    "2: a confidence threshold for uncertain samples",
)
def check_scoring(world):
    with (world.folder / "scores.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["label"] in ("Fake", "Real", "Uncertain") and row["error"] == ""
    assert {"probability_fake", "confidence"} <= row.keys()
    assert {"lower", "upper"} <= world.metrics()["thresholds"].keys()
    with (world.run / "predictions.csv").open(newline="") as file:
        assert {row["verdict"] for row in csv.DictReader(file)} <= {"Fake", "Real", "Uncertain"}


@promise(
    "2: a Streamlit page where users upload images and receive results",
    "2: features for detailed analysis",
)
def check_page(world, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "ui"))
    monkeypatch.setattr("sys.argv", ["App.py"])
    monkeypatch.setattr("real_vs_ai.runs.PACKAGED_RELEASED_MODEL_DIR", world.folder / "none")
    monkeypatch.chdir(world.folder)
    from tests.ui.app_driver import shown_texts, start, upload

    app = start("--model", "models/two")
    assert len(app.file_uploader) == 1
    before = shown_texts(app)
    app = upload(app, {"unseen.png": (world.folder / "unseen.png").read_bytes()})
    assert shown_texts(app) != before
    assert app.tabs or app.expander


@promise("2: Gemini analyses an image and answers in text")
def check_gemini(world, monkeypatch):
    pytest.importorskip("google.genai")
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "ui"))
    from real_vs_ai.ui.gemini import InsightChat
    from tests.ui.app_site import make_gemini_server

    server = make_gemini_server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        chat = InsightChat(api_key="key", base_url=f"http://127.0.0.1:{server.server_port}")
        assert "".join(chat.describe(np.zeros((20, 30, 3), np.uint8), finding="Real, 12 %"))
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


@promise("1, 2, 4: links to the libraries, papers and data, and thanks")
def check_credits(world):
    card = (world.run / "MODEL_CARD.md").read_text()
    assert "ResNet: He, K. et al. (2016)" in card
    assert "kaggle.com" in words("data/README.md")


@pytest.mark.slow
@pytest.mark.parametrize("sentence", PROMISES)
def test_promise(sentence, request):
    check = PROMISES[sentence]
    names = check.__code__.co_varnames[: check.__code__.co_argcount]
    check(**{name: request.getfixturevalue(name) for name in names})


def test_docs_list_every_promise():
    table = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d[^|]*?) \|", table, re.MULTILINE)
    assert sorted(listed) == sorted(PROMISES)
