"""Draw a sheet of the most confident errors with Grad-CAM, and the network itself."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.evaluation.figure_style import new_figure, save_figure, shorten, styled
from real_vs_ai.evaluation.judging import middle_view
from real_vs_ai.files import atomic_write, write_text
from real_vs_ai.keras_models import save_model
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.predictions import Predictions
from real_vs_ai.runs import RunFolder
from real_vs_ai.serving.explanation import GradCam, overlay_heatmap

if TYPE_CHECKING:
    import keras

_MOST_MISTAKES = 12
_PAIRS_IN_A_ROW = 3
_OVERLAY_STRENGTH = 0.65
_NAME_LENGTH = 20
# A network of more layers is drawn stage by stage.
_MOST_BOXES = 30


def most_confident_mistakes(rows: Predictions, *, most: int) -> np.ndarray:
    """Positions of the errors of highest confidence, first the worst; equal ones in their order."""
    confidence = rows.calibrated.max(axis=1)
    wrong = np.flatnonzero(~rows.is_right)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:most]


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
    worst = most_confident_mistakes(rows, most=_MOST_MISTAKES)
    if not len(worst):
        path.unlink(missing_ok=True)
        return None
    # The crop in the middle stands for several: the sheet has room for one picture of each.
    pixels = [middle_view(images.root / images.paths[i], metadata) for i in worst]
    title = (
        f"The {len(worst)} most confident of {np.sum(~rows.is_right):,} errors on {len(rows):,} "
        f"{rows.splits[0]} images\n"
        "(right of each: Grad-CAM, where the image speaks for the predicted class)"
    )
    shown = rows.take(worst)
    heatmaps = _heatmaps(model, pixels, shown, metadata=metadata)
    _draw_sheet(shown, pixels, heatmaps, title=title, path=path)
    return path


def _heatmaps(
    model: keras.Model, pixels: Sequence[np.ndarray], rows: Predictions, *, metadata: ModelMetadata
) -> list[np.ndarray] | None:
    classes = rows.probabilities.argmax(axis=1).tolist()
    try:
        with tempfile.TemporaryDirectory(prefix="real-vs-ai-") as folder:
            save_model(model, Path(folder) / "model.h5", metadata=metadata)
            return GradCam(Path(folder) / "model.h5")(pixels, class_indices=classes)
    except (ValueError, RuntimeError):
        # Networks with other layers: the images alone are worth looking at.
        return None


@styled
def _draw_sheet(
    rows: Predictions,
    pixels: Sequence[np.ndarray],
    heatmaps: Sequence[np.ndarray] | None,
    *,
    title: str,
    path: Path,
) -> None:
    lines = -(-len(rows) // _PAIRS_IN_A_ROW)
    figure, axes = new_figure(lines, 2 * _PAIRS_IN_A_ROW, width=13.5, height=2.75 * lines + 1.0)
    for panel in axes:
        panel.set_axis_off()
    names = [shorten(name, 12) for name in rows.class_names]
    for i, (image, of_classes) in enumerate(zip(pixels, rows.calibrated, strict=True)):
        left, right = axes[2 * i : 2 * i + 2]
        left.imshow(image, interpolation="nearest")
        left.set_title(f"is {names[rows.labels[i]]}\n{_short_name(rows.paths[i])}", fontsize=11)
        if heatmaps is not None:
            overlay = overlay_heatmap(image, heatmaps[i], strength=_OVERLAY_STRENGTH)
            right.imshow(overlay, interpolation="nearest")
        called = f"called {names[of_classes.argmax()]}\nwith {of_classes.max():.3f}"
        right.set_title(called, fontsize=11)
    figure.suptitle(title, fontsize=14)
    save_figure(figure, path)


def _short_name(path: str) -> str:
    """The end of a file's name, which tells images of one source apart."""
    name = shorten(PurePosixPath(path).name, 500)
    return name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}"


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

    by_stage = itertools.groupby(model.layers[1:], lambda layer: _stage_name(layer) or layer.name)
    groups = [list(layers) for _, layers in by_stage]
    inputs = outputs = before = model.inputs[0]
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
