"""What the descriptions promise of the networks and how they learn."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from real_vs_ai.training.command_line import parse_training_options
from tests.promise_checks.world import ROOT, promise


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
