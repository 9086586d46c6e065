"""Read an image, and follow it on its way to a verdict: what the network must compute next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.errors import InputError
from real_vs_ai.images import DecodedImage, decode_image
from real_vs_ai.verdict import Reason, Verdict

ImageLike = str | Path | bytes | np.ndarray | DecodedImage
# Twice the longer side of what sites send on.
_LARGE = 2 * 768


class Look:
    """An image on its way to a verdict: what the network must compute of it next.

    Attributes:
        pixels: What the network judges of the image, shape (views, image_size, image_size, 3),
            uint8: the whole of it, or crops.
        inputs: What it must compute next, shape (n, image_size, image_size, 3).
        outputs: What it made of them, once it has; see `Engine.predict`.
        model: Which of several models judges the image, from 0.
        calibrated: Probabilities of every class, once they are known.
        reason: Why it is out-of-distribution by its pixels, or None.
        verdict: None until nothing is left to compute.
        answer: Gives the verdict to others.
        came: When it came into a queue, by `time.monotonic`.
        taken: How many inputs the queue has handed out, of which `answered` have their outputs.
        is_apart: Judged alone, since a part of it failed: parts that come later do not count.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        *,
        size_reason: Reason | None = None,
        windows: Sequence[tuple[float, float, float, float]] = (),
        make_copy: Callable[[], np.ndarray] | None = None,
    ) -> None:
        """Begin with an image as the network's input.

        Args:
            size_reason: Its size makes it out-of-distribution.
            windows: Where each crop lies in the image; see `ModelInput.windows`.
            make_copy: Makes the inputs of a copy as sites send pictures on; it holds the image.
        """
        self.pixels, self.size_reason, self.windows = pixels, size_reason, windows
        self.make_copy = make_copy
        self.model = 0
        self.answer: Future[Verdict] = Future()
        self.came, self.taken, self.answered, self.is_apart = 0.0, 0, 0, False
        self.restart()

    def restart(self) -> None:
        """Forget what was computed."""
        self.outputs: np.ndarray | None = None
        self.calibrated: np.ndarray | None = None
        self.reason: Reason | None = None
        self.verdict: Verdict | None = None
        # The verdict on the image itself, while its copy is judged.
        self.own: Verdict | None = None
        self.look_at(self.pixels)

    def look_at(self, views: np.ndarray) -> None:
        """Begin with these views of the image, or of its copy."""
        self.views = self.inputs = views
        # Shape (n, n_classes) and (n, n_features), once the network has answered.
        self.probabilities: np.ndarray | None = None
        self.features: np.ndarray | None = None

    def is_wanted(self) -> bool:
        """Whether it was not cancelled while it waited; afterwards it can no longer be."""
        return self.answer.running() or self.answer.set_running_or_notify_cancel()

    def succeed(self) -> None:
        """Answer with the verdict, unless another part of the same image failed before."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_result(self.verdict)

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless another part of the same image failed before."""
        with contextlib.suppress(InvalidStateError):
            self.answer.set_exception(error)

    def let_go_of_image(self) -> None:
        """Make the copy now, so that the image's pixels are held no longer."""
        if self.make_copy:
            copy = self.make_copy()
            self.make_copy = lambda: copy


def pixels_for_sharing(image: np.ndarray | DecodedImage) -> np.ndarray:
    """The image's pixels; of a large one whole squares of pixels averaged, a cheap first step."""
    width, height = image.shape[1::-1] if isinstance(image, np.ndarray) else image.image.size
    factor = max(width, height) // _LARGE
    if factor < 2:
        return image if isinstance(image, np.ndarray) else image.pixels
    held = Image.fromarray(image) if isinstance(image, np.ndarray) else image.image
    return np.asarray(held.reduce(factor))


def read_image(image: ImageLike) -> tuple[np.ndarray | DecodedImage, int, int]:
    """The decoded image, its width and its height."""
    if not isinstance(image, np.ndarray):
        image = image if isinstance(image, DecodedImage) else decode_image(image)
        return image, image.width, image.height
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            "Expected pixels of shape (height, width, 3) and type uint8, found shape "
            f"{image.shape} and type {image.dtype}."
        )
    return image, image.shape[1], image.shape[0]
