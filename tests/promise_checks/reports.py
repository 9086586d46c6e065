"""What the descriptions promise of reports, of saved models and of their use."""

from __future__ import annotations

import csv
import json
import shutil
import threading

import numpy as np
import pytest

from real_vs_ai.training.command_line import parse_training_options
from tests.promise_checks.world import ROOT, SPLITS, TUMOURS, promise, words


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
    monkeypatch.setattr("real_vs_ai.models.runs.PACKAGED_RELEASED_MODEL_DIR", world.folder / "none")
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
