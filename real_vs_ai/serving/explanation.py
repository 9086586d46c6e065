"""Explain a model's answer to an image: which parts of it move the answer.

Each part of what the network sees is painted over in turn (occlusion: Zeiler and Fergus 2014,
"Visualizing and Understanding Convolutional Networks"). What the log-odds of the class lose by that
is what the part says for it. Any engine can do that, for whole images and for crops. A part that
says something only together with others does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from real_vs_ai.core.errors import InputError
from real_vs_ai.models.model_input import Window, logarithms
from real_vs_ai.serving.detector import Detector
from real_vs_ai.verdicts.verdict import CropScore

# Parts of a network's input on each side: of a whole image, and of each of many crops.
_PARTS = 6
_PARTS_OF_A_CROP = 4
# The longer side of a heat map, in pixels; there are far fewer parts.
_MAP_SIDE = 256
# Matplotlib's colour scale "inferno" at equal steps, red, green, blue: the app has no Matplotlib.
_INFERNO = bytes.fromhex(
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 "
    "d04545 e35933 f1711f f98c0a fcaa0f f9c932 f2e865 fcffa4"
)
# More frames would cover the picture.
_MOST_CROPS = 3


def deciding_crops(crops: Sequence[CropScore], *, class_index: int) -> list[CropScore]:
    """The crops that speak most for a class, at most three, and none that hides another.

    Those that speak against the class are left out.
    """
    chosen: list[CropScore] = []
    for crop in sorted(crops, key=lambda crop: -crop.probabilities[class_index]):
        if crop.probabilities[class_index] <= 0.5 or len(chosen) == _MOST_CROPS:
            break
        if not any(_overlap(crop.window, other.window) > 0.25 for other in chosen):
            chosen.append(crop)
    return chosen


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """What share of the first window, in area, the second one covers."""
    (left, top, right, bottom), (left2, top2, right2, bottom2) = one, other
    width = max(0.0, min(right, right2) - max(left, left2))
    height = max(0.0, min(bottom, bottom2) - max(top, top2))
    return width * height / ((right - left) * (bottom - top))


def heat_map(detector: Detector, pixels: np.ndarray, *, class_index: int) -> np.ndarray:
    """Where an image speaks for a class of a model, 0 (not at all) to 1 (the most in this image).

    It takes about 16 times as long as a verdict by crops, 36 times as long as one on a thumbnail.

    Args:
        pixels: Upright RGB, shape (height, width, 3), uint8.
        class_index: Any class, whatever the verdict was.

    Returns:
        Shape (map_height, map_width), float32: the image's own proportions, no side above 256.

    Raises:
        InputError: The model has no such class.
    """
    model_input, n_classes = detector.metadata.model_input, len(detector.metadata.class_names)
    if not 0 <= class_index < n_classes:
        raise InputError(f"Expected a class index below {n_classes}, found {class_index}.")
    height, width = pixels.shape[:2]
    inputs, windows = model_input.prepare(pixels), model_input.windows(width, height)
    effects = occlude(
        lambda some: detector.engine.predict(some)[:, :n_classes],
        inputs,
        class_indices=[class_index] * len(inputs),
        colours=[inputs.mean(axis=(0, 1, 2))] * len(inputs),
        parts=_PARTS_OF_A_CROP if model_input.is_crops else _PARTS,
    )
    scale = min(1.0, _MAP_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _lay_out(effects, windows, size)


def occlude(
    predict: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    *,
    class_indices: Sequence[int],
    colours: Sequence[np.ndarray],
    parts: int,
) -> np.ndarray:
    """What the log-odds of a class lose where a part of a network's input is painted over.

    Args:
        predict: Gives softmax outputs, (n, n_classes), for inputs, (n, size, size, 3), uint8.
        inputs: Shape (n, size, size, 3), uint8.
        class_indices: The class of each input.
        colours: What parts of each input are painted with: the image's mean, (3,), 0 to 255.
        parts: On each side of an input, which has so many pixels at least.

    Returns:
        Shape (n, parts, parts), float32; negative where the part speaks against the class.
    """
    size = inputs.shape[1]
    edges = np.linspace(0, size, parts + 1).round().astype(int)
    effects = np.empty((len(inputs), parts, parts), np.float32)
    for index, (pixels, class_index, colour) in enumerate(
        zip(inputs, class_indices, colours, strict=True)
    ):
        changed = np.repeat(pixels[None], 1 + parts**2, axis=0)
        # The first one stays as it is.
        for part, one in enumerate(changed[1:]):
            (top, bottom), (left, right) = (edges[i : i + 2] for i in divmod(part, parts))
            one[top:bottom, left:right] = colour
        probabilities = predict(changed).astype(np.float64)
        others = np.delete(probabilities, class_index, axis=1).sum(axis=1)
        log_odds = logarithms(probabilities[:, class_index]) - logarithms(others)
        effects[index] = (log_odds[0] - log_odds[1:]).reshape(parts, parts)
    return effects


def _lay_out(effects: np.ndarray, windows: Sequence[Window], size: tuple[int, int]) -> np.ndarray:
    """The effects of each input's parts, summed where the inputs lie in the image, 0 to 1."""
    total = np.zeros(size[::-1], np.float32)
    for of_input, window in zip(effects, windows, strict=True):
        left, top, right, bottom = (
            round(edge * side) for edge, side in zip(window, 2 * size, strict=True)
        )
        if right > left and bottom > top:
            total[top:bottom, left:right] += enlarge(of_input, (right - left, bottom - top))
    return scale_to_1(total)


def enlarge(effects: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Effects of parts, (parts, parts), float32, at a width and height in pixels."""
    return np.asarray(Image.fromarray(effects).resize(size, Image.Resampling.BILINEAR))


def scale_to_1(effects: np.ndarray) -> np.ndarray:
    """What speaks for the class as a share of the most that does so, 0 to 1."""
    positive = np.maximum(effects, 0)
    highest = float(positive.max())
    return positive / highest if highest > 0 else positive


def overlay_heatmap(pixels: np.ndarray, heatmap: np.ndarray, *, strength: float) -> np.ndarray:
    """Lay a heatmap over an image in a colour scale that colour-blind people can read.

    Args:
        pixels: Shape (height, width, 3), uint8, as is the result.
        heatmap: Shape (height, width), 0 to 1.
        strength: 0 leaves the image as it is, 1 covers the strongest places wholly.
    """
    scale = np.frombuffer(_INFERNO, np.uint8).reshape(-1, 3)
    places = np.linspace(0, 1, len(scale))
    colours = np.stack([np.interp(heatmap, places, channel) for channel in scale.T], axis=-1)
    # Weak places stay clear, so that the picture can still be judged there.
    cover = strength * np.clip(heatmap, 0, 1)[..., None]
    return np.rint(pixels * (1 - cover) + colours * cover).astype(np.uint8)
