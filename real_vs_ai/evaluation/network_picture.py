"""List a network's layers, and draw it with Keras' `plot_model`: a deep one stage by stage."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from real_vs_ai.core.errors import one_line
from real_vs_ai.core.files import atomic_write, write_text
from real_vs_ai.models.runs import RunFolder

if TYPE_CHECKING:
    import keras

# A picture of more boxes fits no page.
_MOST_BOXES = 30
# How Keras' ResNets and the other backbones name the layers of a stage.
_STAGE = re.compile(r"(conv\d+|block\d+|stem|top)[a-z]?_")
# The layers of `networks.head` that make statistics of every stage.
_STATISTICS = re.compile(
    r"head_.+_(column|centre|offsets|unit|products|length|mean|deviation)$|head_pool$"
)


def draw_network(model: keras.Model, run: RunFolder) -> str | None:
    """Write `network.txt`, and `figures/network.png` where pydot and Graphviz are installed.

    Returns:
        What is missing for the picture, as one sentence, or None.
    """
    layers: list[str] = []
    model.summary(print_fn=layers.append, line_length=110)
    write_text(run.network, "\n".join(layers) + "\n")
    return _plot(model, run.figures / "network.png")


def _plot(model: keras.Model, path: Path) -> str | None:
    import keras

    drawn = model if len(model.layers) <= _MOST_BOXES else stages_of(model)
    try:
        with atomic_write(path) as staging:
            # What is not written fails when it is to take its name.
            keras.utils.plot_model(
                drawn,
                to_file=staging,
                show_shapes=True,
                show_layer_names=True,
                show_layer_activations=True,
                dpi=110,
            )
    # pydot's error when Graphviz fails is an AssertionError.
    except (ImportError, OSError, AssertionError) as error:
        path.unlink(missing_ok=True)
        return (
            "No picture of the network: install pydot (pip install pydot) and Graphviz "
            "(https://graphviz.org/download). network.txt lists the layers. "
            f"({one_line(error)[:120]})"
        )
    return None


def stages_of(model: keras.Model) -> keras.Model:
    """The same network with the layers of each stage folded into one box.

    A network whose layers name no stages, or that uses a layer twice, is returned as it is.
    """
    import keras

    groups = [list(some) for _, some in itertools.groupby(model.layers, _stage_name)]
    renamed = {id(tensor): tensor for tensor in model.inputs}
    try:
        for position, group in enumerate(groups):
            later = {id(t) for g in groups[position + 1 :] for layer in g for t in _inputs(layer)}
            made = [layer.output for layer in group]
            needed = {id(t) for t in made}
            inputs = _once(t for layer in group for t in _inputs(layer) if id(t) not in needed)
            wanted = later | {id(t) for t in model.outputs}
            outputs = [tensor for tensor in made if id(tensor) in wanted]
            if isinstance(group[0], keras.layers.InputLayer):
                continue
            given = [renamed[id(tensor)] for tensor in inputs]
            call = _box(group, inputs, outputs)
            made_again = call(_one_or_list(given))
            made_again = made_again if isinstance(made_again, (list, tuple)) else [made_again]
            renamed |= {id(old): new for old, new in zip(outputs, made_again, strict=True)}
        ends = [renamed[id(tensor)] for tensor in model.outputs]
        return keras.Model(_one_or_list(model.inputs), _one_or_list(ends), name=model.name)
    except (AttributeError, ValueError, TypeError, KeyError, NotImplementedError):
        return model


def _box(group: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[..., Any]:
    """A layer alone, or several as a model of their own."""
    import keras

    if len(group) == 1:
        return group[0]
    name = f"{_stage_name(group[0])}_{len(group)}_layers"
    return keras.Model(_one_or_list(inputs), _one_or_list(outputs), name=name)


def _one_or_list(tensors: Sequence[Any]) -> Any:
    """What Keras names a single input or output of a model: the tensor itself."""
    return list(tensors) if len(tensors) > 1 else tensors[0]


def _stage_name(layer: keras.Layer) -> str:
    """ "conv4" of "conv4_block3_out"; a layer of no stage has its own name."""
    if _STATISTICS.match(layer.name):
        return "head_statistics"
    stage = _STAGE.match(layer.name)
    return stage[1] if stage else layer.name


def _inputs(layer: keras.Layer) -> list[Any]:
    inputs = layer.input
    return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]


def _once(tensors: Any) -> list[Any]:
    return list({id(tensor): tensor for tensor in tensors}.values())
