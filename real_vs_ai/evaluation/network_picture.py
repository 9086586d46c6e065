"""A network in, a picture of it out: Keras' plot_model, drawn so that it can be read.

    draw_network(model, run)      # figures/network.png and network.txt

A deep network is drawn as its stages (conv1, conv2, …), since 350 boxes in a column are no picture.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from real_vs_ai.files import atomic_write, write_text
from real_vs_ai.runs import RunFolder

if TYPE_CHECKING:
    import keras

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
    except (ValueError, TypeError):
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
