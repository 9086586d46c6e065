"""Draw a sheet of the most confident errors with Grad-CAM, and the network itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.evaluation.figure_style import new_figure, save_figure, shorten, styled
from real_vs_ai.files import atomic_write, write_text
from real_vs_ai.images import decode_image
from real_vs_ai.keras_models import save_model
from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.predictions import Predictions
from real_vs_ai.runs import RunFolder
from real_vs_ai.serving.explanation import Explainer, overlay_heatmap

if TYPE_CHECKING:
    import keras

_MOST_MISTAKES = 12
_PAIRS_IN_A_ROW = 3
_OVERLAY_STRENGTH = 0.65
_NAME_LENGTH = 20


@dataclass(frozen=True)
class Mistake:
    """One image that the model gets wrong: its row, class, and class of highest probability.

    Attributes:
        confidence: Calibrated probability of the predicted class.
    """

    position: int
    path: str
    true: int
    predicted: int
    confidence: float


def most_confident_mistakes(
    rows: Predictions, *, temperature: float, n_mistakes: int
) -> list[Mistake]:
    """The errors of highest confidence, first the worst; equal ones in the order of the paths."""
    calibrated = calibrate(rows.probabilities, temperature=temperature)
    predicted = calibrated.argmax(axis=1)
    confidence = calibrated.max(axis=1)
    wrong = np.flatnonzero(predicted != rows.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:n_mistakes]
    return [
        Mistake(
            position=int(i),
            path=str(rows.paths[i]),
            true=int(rows.labels[i]),
            predicted=int(predicted[i]),
            confidence=float(confidence[i]),
        )
        for i in worst
    ]


def draw_mistakes(
    run: RunFolder,
    rows: Predictions,
    images: LabelledImages,
    *,
    metadata: ModelMetadata,
    model: keras.Model,
) -> Path | None:
    """Draw `figures/mistakes.png` for the images of one split.

    Args:
        rows: The verdicts on the images, in their order.

    Returns:
        The sheet, or None when the model makes no mistake (an old sheet is then removed).
    """
    path = run.figures / "mistakes.png"
    mistakes = most_confident_mistakes(
        rows, temperature=metadata.temperature, n_mistakes=_MOST_MISTAKES
    )
    if not mistakes:
        path.unlink(missing_ok=True)
        return None
    pixels = []
    for mistake in mistakes:
        views = metadata.model_input.prepare(
            decode_image(images.root / images.paths[mistake.position])
        )
        # The crop in the middle stands for several: the sheet has room for one picture of each.
        pixels.append(views[len(views) // 2])
    classes = [mistake.predicted for mistake in mistakes]
    heatmaps = _heatmaps(model, pixels, metadata=metadata, classes=classes)
    n_wrong = int(np.sum(rows.probabilities.argmax(axis=1) != rows.labels))
    title = (
        f"The {len(mistakes)} most confident of {n_wrong:,} errors on {len(rows):,} "
        f"{rows.splits[0]} images\n"
        "(right of each: Grad-CAM, where the image speaks for the predicted class)"
    )
    _draw_sheet(
        mistakes, pixels, heatmaps, class_names=metadata.class_names, title=title, path=path
    )
    return path


def _heatmaps(
    model: keras.Model,
    pixels: Sequence[np.ndarray],
    *,
    metadata: ModelMetadata,
    classes: Sequence[int],
) -> list[np.ndarray] | None:
    try:
        with tempfile.TemporaryDirectory(prefix="real-vs-ai-") as folder:
            save_model(model, Path(folder) / "model.h5", metadata=metadata)
            return Explainer(Path(folder) / "model.h5").heatmaps(pixels, class_indices=classes)
    except (ValueError, RuntimeError):
        # Networks with other layers: the images alone are worth looking at.
        return None


@styled
def _draw_sheet(
    mistakes: Sequence[Mistake],
    pixels: Sequence[np.ndarray],
    heatmaps: Sequence[np.ndarray] | None,
    *,
    class_names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    rows = -(-len(mistakes) // _PAIRS_IN_A_ROW)
    figure, axes = new_figure(rows, 2 * _PAIRS_IN_A_ROW, width=13.5, height=2.75 * rows + 1.0)
    for panel in axes:
        panel.set_axis_off()
    for i, (mistake, image) in enumerate(zip(mistakes, pixels, strict=True)):
        left, right = axes[2 * i : 2 * i + 2]
        left.imshow(image, interpolation="nearest")
        left.set_title(
            f"is {shorten(class_names[mistake.true], 12)}\n{_short_name(mistake.path)}", fontsize=11
        )
        if heatmaps is not None:
            overlay = overlay_heatmap(image, heatmaps[i], strength=_OVERLAY_STRENGTH)
            right.imshow(overlay, interpolation="nearest")
        right.set_title(
            f"called {shorten(class_names[mistake.predicted], 12)}\nwith {mistake.confidence:.3f}",
            fontsize=11,
        )
    figure.suptitle(title, fontsize=14)
    save_figure(figure, path)


def _short_name(path: str) -> str:
    """The end of a file's name, which tells images of one source apart."""
    name = shorten(PurePosixPath(path).name, 500)
    return name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}"


_MOST_BOXES = 30


def draw_network(model: keras.Model, run: RunFolder) -> str | None:
    """Write the layers as text, and as a picture where Graphviz is installed.

    Returns:
        Why there is no picture, as one sentence, or None.
    """
    lines: list[str] = []
    model.summary(print_fn=lines.append, line_length=110)
    write_text(run.path / "network.txt", "\n".join(lines) + "\n")
    return _plot(model, run.figures / "network.png")


def stages_of(model: keras.Model) -> keras.Model:
    """The same network with the layers of each stage (`conv4_…`) folded into one box.

    A network without such stages, or with stages that more than one tensor links, is returned
    as it is.
    """
    import keras

    groups: list[list[keras.Layer]] = []
    for layer in model.layers[1:]:
        stage = _stage_name(layer)
        if groups and stage and _stage_name(groups[-1][0]) == stage:
            groups[-1].append(layer)
        else:
            groups.append([layer])
    inputs = outputs = model.inputs[0]
    before = model.inputs[0]
    try:
        for group in groups:
            if len(group) == 1:
                outputs = group[0](outputs)
            else:
                name = f"{_stage_name(group[0])}_{len(group)}_layers"
                outputs = keras.Model(before, group[-1].output, name=name)(outputs)
            before = group[-1].output
        return keras.Model(inputs, outputs, name=model.name)
    except (ValueError, TypeError, NotImplementedError):
        return model


def _stage_name(layer: keras.Layer) -> str:
    """ "conv4" of "conv4_block3_out", "" of layers that belong to no stage."""
    stage, separator, _ = layer.name.partition("_")
    return stage if separator and stage.startswith("conv") and stage[4:].isdigit() else ""


def _plot(model: keras.Model, path: Path) -> str | None:
    import keras

    try:
        drawn = model if len(model.layers) <= _MOST_BOXES else stages_of(model)
        with atomic_write(path) as staging:
            keras.utils.plot_model(
                drawn,
                to_file=staging,
                show_shapes=True,
                show_layer_names=True,
                show_layer_activations=True,
                rankdir="TB",
                dpi=110,
            )
            if not staging.is_file():
                staging.touch()
                raise OSError("nothing was drawn")
    except (ImportError, OSError, AssertionError) as error:
        path.unlink(missing_ok=True)
        reason = " ".join(str(error).split(os.linesep)[0].split())[:120]
        return (
            "No picture of the network: install Graphviz (https://graphviz.org/download) and "
            f"pydot. Its layers are listed in network.txt. ({reason})"
        )
    return None
