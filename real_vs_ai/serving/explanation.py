"""Why the model judges an image as it does: Grad-CAM as an array and as a picture.

    explainer = Explainer(detector.model_path)
    explanation = explainer.explain("photograph.jpg", class_name="Fake")
    Image.fromarray(explanation.overlay).save("why.png")

The first explanation compiles the model with its gradient. A model with layers whose gradient is
not known here needs Keras; verdicts do not.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from real_vs_ai.errors import InputError
from real_vs_ai.gradcam import GradCam, overlay_heatmap
from real_vs_ai.images import open_image
from real_vs_ai.keras_models import keras_is_installed, load_model
from real_vs_ai.model_file import read_metadata
from real_vs_ai.serving.compiled_gradcam import CompiledGradCam
from real_vs_ai.serving.keras_graph import UnsupportedGraphError


@dataclass(frozen=True)
class Explanation:
    """Where an image speaks for a class.

    Attributes:
        class_name: The class it speaks for.
        heatmap: Shape (height, width), float32, 0 (no evidence) to 1 (the most in this image).
        overlay: The image under the heatmap, shape (height, width, 3), uint8.
    """

    class_name: str
    heatmap: np.ndarray
    overlay: np.ndarray


class Explainer:
    """Grad-CAM of one model; may be shared by threads, which wait for one another."""

    def __init__(self, model_path: Path) -> None:
        """Read what the file says of the model; the model itself is loaded when it is needed.

        Raises:
            FileNotFoundError: There is no such file.
            ModelFileError: It is not one of our model files.
        """
        self.model_path = model_path
        self.class_names = read_metadata(model_path).class_names
        self._lock = threading.Lock()

    def explain(
        self, image: str | Path | bytes | np.ndarray, *, class_name: str, strength: float = 0.6
    ) -> Explanation:
        """Explain one class for one image.

        Args:
            image: A path, a file's bytes, or upright RGB pixels, shape (height, width, 3), uint8.
            class_name: One of the model's classes, whatever the verdict was.
            strength: How much the overlay covers: 0 nothing, 1 the strongest places wholly.

        Raises:
            ImageError: The image cannot be decoded.
            ValueError: The model has no such class, or no feature maps.
        """
        if class_name not in self.class_names:
            raise InputError(f"Expected one of the classes {self.class_names}, found {class_name}.")
        pixels = image if isinstance(image, np.ndarray) else open_image(image)
        with self._lock:
            index = self.class_names.index(class_name)
            (heatmap,) = self._grad_cam([pixels], class_indices=[index])
        return Explanation(class_name, heatmap, overlay_heatmap(pixels, heatmap, strength=strength))

    @cached_property
    def _grad_cam(self) -> CompiledGradCam | GradCam:
        try:
            return CompiledGradCam(self.model_path)
        except UnsupportedGraphError as error:
            if not keras_is_installed():
                raise InputError(
                    f"Heat maps of this model need TensorFlow, as {error}. "
                    "Run: pip install -r requirements.txt"
                ) from error
        return GradCam(load_model(self.model_path))
