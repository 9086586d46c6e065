"""Grad-CAM in the app: the Keras model is loaded when the first heat map is asked for.

heatmap = heat_map(chosen, pixels, digest=digest, class_name="Fake")
st.image(overlay(pixels, heatmap, strength=0.6))
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from real_vs_ai.gradcam import overlay_heatmap
from real_vs_ai.images import resize_image
from real_vs_ai.serving.explanation import Explainer
from real_vs_ai.ui.checking import fit_to_screen
from real_vs_ai.ui.model_choice import ChosenModel

# In pixels; large enough to see, small enough to send at each move of the slider.
_SHOWN_SIZE = 768


def heat_map(
    chosen: ChosenModel, pixels: np.ndarray, *, digest: str, class_name: str
) -> np.ndarray:
    """Where the image speaks for a class, at the model's own input size.

    Args:
        chosen: The model.
        pixels: Upright, shape (height, width, 3), uint8.
        digest: Of the image; the map is computed once in a session.
        class_name: The class to explain.

    Returns:
        Shape (image_size, image_size), float32, 0 to 1.

    Raises:
        OSError, ValueError, RuntimeError: The model cannot be explained.
    """
    known = st.session_state.setdefault("heat_maps", {})
    key = (chosen.key, digest, class_name)
    if key not in known:
        # What the network saw, and a map small enough to keep.
        seen = resize_image(pixels, chosen.metadata.image_size)
        known[key] = _explainer(*chosen.key).explain(seen, class_name=class_name).heatmap
    return known[key]


def overlay(pixels: np.ndarray, heatmap: np.ndarray, *, strength: float) -> np.ndarray:
    """The image, at a size for the screen, under the heat map; see `gradcam.overlay_heatmap`."""
    image = fit_to_screen(Image.fromarray(pixels), longest_side=_SHOWN_SIZE)
    cells = Image.fromarray(heatmap).resize(image.size, Image.Resampling.BILINEAR)
    return overlay_heatmap(np.asarray(image), np.asarray(cells), strength=strength)


@st.cache_resource(max_entries=1, show_spinner=False)
def _explainer(path: str, modified_ns: int, size: int) -> Explainer:
    return Explainer(Path(path))
