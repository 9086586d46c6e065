"""Tell in-distribution images from others by their pixels.

A logistic classifier on statistics of 8 × 8 blocks: the strength of every frequency, and how well
each fits the steps that compression rounded the training images' frequencies to. It finds what was
stored otherwise. A `PixelNetwork` also finds what was stored alike and shows something else.
Features of the model's own network tell thumbnails of other pictures far worse: it learnt to tell
the classes, whatever the pictures show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np

_BLOCK = 8
# Steps that JPEG rounds a frequency to, from good to poor quality.
_STEPS = np.arange(3, 80)
# Smaller values round to zero at any step, and so tell nothing of it.
_LEAST_VALUE = 2.5
# Images measured at a time.
_ROWS = 256
_ROWS_IN_NETWORK = 32


class _Scored:
    """Compares scores of images with a limit."""

    # The share of the held-back images that may be refused: by both of these and the other checks,
    # and of new images, at most one in 20.
    share_refused: ClassVar[float]
    least_score: float

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """How much each image looks in-distribution, shape (n,)."""
        raise NotImplementedError

    def accepts(self, pixels: np.ndarray) -> np.ndarray:
        """Which images are in-distribution, shape (n,), bool; see `scores`."""
        return self.scores(pixels) >= self.least_score

    def with_limit(self, held_back: np.ndarray) -> Self:
        """The same with the limit that refuses a small share of these images."""
        limit = float(np.quantile(self.scores(held_back), self.share_refused))
        return cast(Self, replace(cast(Any, self), least_score=limit))


@dataclass(frozen=True)
class PixelClassifier(_Scored):
    """Statistics of the training images' pixels, and what tells others from them.

    Attributes:
        steps: What the brightness's frequencies were rounded to, shape (64,), float32.
        weights: Of each statistic, shape (n_statistics,), float32.
        least_score: Images that score lower are out-of-distribution.
    """

    # What was stored otherwise is easy to tell.
    share_refused = 0.005
    steps: np.ndarray
    weights: np.ndarray
    bias: float
    least_score: float

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Higher for images more like the training images, shape (n,), float32.

        Args:
            pixels: Shape (n, height, width, 3), uint8, at least 16 pixels high and wide.
        """
        return measure(pixels, steps=self.steps) @ self.weights + self.bias


@dataclass(frozen=True)
class PixelNetwork(_Scored):
    """A small convolutional network that scores how much images look like the training images.

    NumPy computes it, so that the engines of the model all give one score to the last bit.

    Attributes:
        kernels: Of each convolution, shape (3, 3, n_inputs, n_outputs), float32; every second one
            halves height and width.
        biases: Of each, shape (n_outputs,), float32.
        weights: Of the last layer's means over the image, shape (n_outputs,), float32.
        least_score: Images that score lower are out-of-distribution.
    """

    share_refused = 0.035
    kernels: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    weights: np.ndarray
    least_score: float

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Higher for images more like the training images, shape (n,), float32.

        Args:
            pixels: Shape (n, height, width, 3), uint8.
        """
        parts = [
            pixels[start : start + _ROWS_IN_NETWORK]
            for start in range(0, len(pixels), _ROWS_IN_NETWORK)
        ]
        return np.concatenate([self._score(part) for part in parts])

    def _score(self, pixels: np.ndarray) -> np.ndarray:
        values = pixels.astype(np.float32) / 64 - 2
        for index, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            values = _convolve(values, kernel, step=1 + index % 2) + bias
            np.maximum(values, 0, out=values)
        return values.mean(axis=(1, 2)) @ self.weights


def _convolve(values: np.ndarray, kernel: np.ndarray, *, step: int) -> np.ndarray:
    """A convolution with zeros around the image, as Keras' padding "same" has it.

    Args:
        values: Shape (n, height, width, n_inputs).
        kernel: Shape (3, 3, n_inputs, n_outputs).
        step: 1, or 2 to halve height and width.
    """
    sides = values.shape[1:3]
    rows, columns = (-(-side // step) for side in sides)
    missing = [
        max(0, (n - 1) * step + 3 - side) for n, side in zip((rows, columns), sides, strict=True)
    ]
    around = [(0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)]
    padded = np.pad(values, around)
    windows = [
        padded[:, y : y + step * rows : step, x : x + step * columns : step]
        for y in range(3)
        for x in range(3)
    ]
    # One large product takes a tenth of the time of nine on the windows as they lie.
    flat = np.concatenate(windows, axis=-1).reshape(-1, 9 * values.shape[-1])
    result = flat @ kernel.reshape(-1, kernel.shape[-1])
    return result.reshape(len(values), rows, columns, -1)


def fit_classifier(
    train: np.ndarray, others: np.ndarray, held_back: np.ndarray, *, seed: int
) -> PixelClassifier:
    """Fit the classifier, and its limit on images held back from that.

    Args:
        train: In-distribution images as the network's input, shape (n, size, size, 3), uint8.
        others: Images of other kinds at the same size, shape (n_others, size, size, 3), uint8.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    steps = find_steps(train)
    values = np.concatenate([measure(train, steps=steps), measure(others, steps=steps)])
    labels = np.repeat([1, 0], [len(train), len(others)])
    scaler = StandardScaler().fit(values)
    model = LogisticRegression(C=0.1, max_iter=200, class_weight="balanced", random_state=seed)
    model.fit(scaler.transform(values), labels)
    weights = (model.coef_[0] / scaler.scale_).astype(np.float32)
    bias = float(model.intercept_[0] - np.sum(model.coef_[0] * scaler.mean_ / scaler.scale_))
    return PixelClassifier(steps, weights, bias, least_score=-np.inf).with_limit(held_back)


def find_steps(pixels: np.ndarray) -> np.ndarray:
    """The step that each frequency of the images' brightness was most likely rounded to.

    Args:
        pixels: Shape (n, height, width, 3), uint8.

    Returns:
        Shape (64,), float32; without traces of compression some step all the same.
    """
    brightness = _luma_and_chroma(pixels)[..., 0]
    values = _frequencies(brightness).reshape(-1, _BLOCK * _BLOCK)
    steps_of_table = np.full(_BLOCK * _BLOCK, _STEPS[0], np.float32)
    for index in range(len(steps_of_table)):
        telling = values[:, index][np.abs(values[:, index]) > _LEAST_VALUE]
        if len(telling):
            fits = [np.cos(2 * np.pi * telling / step).mean() for step in _STEPS]
            steps_of_table[index] = _STEPS[int(np.argmax(fits))]
    return steps_of_table


def measure(pixels: np.ndarray, *, steps: np.ndarray) -> np.ndarray:
    """The statistics of each image, shape (n, n_statistics), float32.

    Args:
        pixels: Shape (n, height, width, 3), uint8, at least 16 pixels high and wide.
        steps: As `find_steps` finds them.
    """
    parts = [pixels[start : start + _ROWS] for start in range(0, len(pixels), _ROWS)]
    return np.concatenate([_measure_some(part, steps=steps) for part in parts])


def _measure_some(pixels: np.ndarray, *, steps: np.ndarray) -> np.ndarray:
    planes = _luma_and_chroma(pixels)
    strengths, fits = [], []
    for plane in range(3):
        values = _frequencies(planes[..., plane])
        sizes = np.abs(values)
        strengths += [np.log1p(sizes).mean(axis=1), (sizes < 1.5).mean(axis=1)]
        if plane == 0:
            rounded = values / steps
            fit, telling = np.cos(2 * np.pi * rounded), np.abs(rounded) > 0.3
            fits = [fit.mean(axis=1), (fit * telling).sum(axis=1) / (telling.sum(axis=1) + 1)]
    flat = planes.reshape(len(planes), -1, 3)
    colours = [flat.mean(axis=1), flat.std(axis=1)]
    jumps = [_jumps(planes[..., 0]), _jumps(planes[..., 0].swapaxes(1, 2))]
    return np.concatenate([*strengths, *fits, *colours, *jumps], axis=1).astype(np.float32)


def _luma_and_chroma(pixels: np.ndarray) -> np.ndarray:
    """As JPEG has it, centred at 0, shape (n, height, width, 3), float32."""
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([luma - 128, 0.564 * (blue - luma), 0.713 * (red - luma)], axis=-1)


def _frequencies(plane: np.ndarray) -> np.ndarray:
    """The cosine transform of each whole block, shape (n, n_blocks, 64).

    Args:
        plane: Shape (n, height, width).
    """
    rows, columns = plane.shape[1] // _BLOCK, plane.shape[2] // _BLOCK
    whole = plane[:, : rows * _BLOCK, : columns * _BLOCK]
    blocks = whole.reshape(len(plane), rows, _BLOCK, columns, _BLOCK).swapaxes(2, 3)
    transform = _cosines()
    return (transform @ blocks @ transform.T).reshape(len(plane), rows * columns, -1)


def _cosines() -> np.ndarray:
    """The orthonormal cosine transform of 8 values, shape (8, 8), float32."""
    k, x = np.mgrid[:_BLOCK, :_BLOCK]
    matrix = np.cos(np.pi * (2 * x + 1) * k / (2 * _BLOCK)) * np.sqrt(2 / _BLOCK)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


def _jumps(plane: np.ndarray) -> np.ndarray:
    """How much neighbouring columns differ, by their place in the block, shape (n, 8)."""
    differences = np.abs(np.diff(plane, axis=2))
    by_place = [differences[:, :, place::_BLOCK].mean(axis=(1, 2)) for place in range(_BLOCK)]
    return np.log1p(np.stack(by_place, axis=1))


# Posters, documents, drawings and logos: most of their area is flat, or of one colour.
_FLAT_DEVIATION = 1.0
_MOST_FLAT = 0.55
_MOST_OF_ONE_COLOUR = 0.45
_FLAT_BLOCK = 16


def grey_values(pixels: np.ndarray) -> np.ndarray:
    """The mean of the channels, (…, 3) to (…), float32: half the time of numpy's own mean."""
    return (pixels[..., 0].astype(np.float32) + pixels[..., 1] + pixels[..., 2]) / np.float32(3)


def are_plain(views: np.ndarray) -> bool:
    """Whether most of what the views of an image show is flat or of one colour.

    Training leaves such pictures out; a model that judges crops gives no verdict on them.

    Args:
        views: The whole image, or crops of it, shape (n, height, width, 3), uint8.
    """
    flat = _flat_blocks(views)
    if flat.size and flat.mean() > _MOST_FLAT:
        return True
    counts = np.bincount(_colours(views).ravel())
    return bool(counts.max() / counts.sum() > _MOST_OF_ONE_COLOUR)


def plain_blocks(pixels: np.ndarray) -> np.ndarray:
    """Which blocks of 16 × 16 pixels are flat or mostly of the image's commonest colour.

    Args:
        pixels: Shape (height, width, 3), uint8.

    Returns:
        Shape (height // 16, width // 16), bool.
    """
    (flat,), (colours,) = _flat_blocks(pixels[None]), _colours(pixels[None])
    common = colours == np.bincount(colours.ravel()).argmax()
    (rows, columns), side = flat.shape, _FLAT_BLOCK // 4
    shares = common[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return flat | (shares.mean(axis=(1, 3)) > 0.5)


def _flat_blocks(views: np.ndarray) -> np.ndarray:
    """Which blocks have hardly any contrast, shape (n, rows, columns), bool."""
    grey = grey_values(views)
    rows, columns = (side // _FLAT_BLOCK for side in grey.shape[1:])
    whole = grey[:, : rows * _FLAT_BLOCK, : columns * _FLAT_BLOCK]
    blocks = whole.reshape(len(grey), rows, _FLAT_BLOCK, columns, _FLAT_BLOCK)
    return blocks.std(axis=(2, 4)) < _FLAT_DEVIATION


def _colours(views: np.ndarray) -> np.ndarray:
    """The colour of every fourth pixel of every fourth row, as one of 4,096 numbers."""
    return (views[:, ::4, ::4].astype(np.int32) // 16) @ np.array([256, 16, 1])
