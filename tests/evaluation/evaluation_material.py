"""Make a model whose answers are known, and images for it: red is Fake, blue is Real."""

import numpy as np
from PIL import Image

from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.evaluation.judging import open_detector
from real_vs_ai.evaluation.report import evaluate_model
from real_vs_ai.evaluation.report_files import write_evaluation
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.runs import RunFolder

SIZE = 8


def colour_model(n_classes=2):
    """Softmax over the mean of the first colour channels; flat, ending in a Dense layer."""
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    scaled = keras.layers.Rescaling(1 / 64)(inputs)
    maps = keras.layers.Conv2D(n_classes, 1, use_bias=False, name="maps")(scaled)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    outputs = keras.layers.Dense(n_classes, activation="softmax")(pooled)
    model = keras.Model(inputs, outputs, name="colours")
    kernel = np.zeros((1, 1, 3, n_classes), np.float32)
    for index, channel in enumerate((0, 2, 1)[:n_classes]):
        kernel[0, 0, channel, index] = 1
    model.get_layer("maps").set_weights([kernel])
    model.layers[-1].set_weights([np.eye(n_classes, dtype=np.float32), np.zeros(n_classes)])
    return model


def write_images(folder, *, class_names=("Fake", "Real"), n=12, size=SIZE, wrong=2, seed=0):
    """Images of each class in its colour; the last `wrong` of each in the next class's colour."""
    generator = np.random.default_rng(seed)
    for index, name in enumerate(class_names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            shown = (index + (i >= n - wrong)) % len(class_names)
            pixels = generator.integers(0, 100, (size, size, 3), dtype=np.uint8)
            pixels[..., (0, 2, 1)[shown]] += np.uint8(60 + 5 * (i % 12))
            source = "first" if i % 2 else "second"
            Image.fromarray(pixels).save(folder / name / f"{source}__{i:03}.png")


def list_splits(folder, splits=("validation", "test")):
    return {split: list_labelled_images(folder / split) for split in splits}


def write_report(run, metadata, images, *, model, left_out=None):
    """Evaluate a run's own model as training ends with it; the metrics."""
    how = {"target_error": 0.05, "by_source": False, "workers": 1}
    detector = open_detector(run.model, metadata)
    evaluation = evaluate_model(detector, images, left_out=left_out or {}, **how)
    write_evaluation(run, evaluation, model=model, store_in=run.model)
    return evaluation.metrics


def make_run(folder, model, *, class_names=("Fake", "Real")):
    """A run folder with a model file and its metadata, as training leaves it."""
    from real_vs_ai.models.keras_models import save_model

    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    metadata = ModelMetadata(class_names=class_names, image_size=SIZE, backbone="colours")
    save_model(model, run.model, metadata=metadata)
    return run, metadata
