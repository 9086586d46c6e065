"""Draw where in a picture the model found what speaks most for its answer; no Streamlit here."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageEnhance

from real_vs_ai.core.messages import Message
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.serving.explanation import deciding_crops
from real_vs_ai.ui.checking import Card
from real_vs_ai.ui.wording import class_words
from real_vs_ai.verdicts.verdict import CropScore


def deciding_parts(judged: Card, *, metadata: ModelMetadata) -> tuple[Image.Image, str]:
    """The preview, dark but for the crops that speak most for the answer, and what it shows.

    Args:
        judged: With a certain verdict of a model that judges crops.
    """
    verdict = judged.given_verdict
    index = metadata.class_names.index(verdict.label)
    crops = deciding_crops(verdict.crops, class_index=index)
    told = Message("places.crops", words=class_words(verdict.label, metadata))
    return frame_crops(preview_of(judged), crops), told


def preview_of(judged: Card) -> Image.Image:
    """The picture as cards show it, upright RGB."""
    return Image.open(io.BytesIO(judged.preview)).convert("RGB")


def darkened(image: Image.Image) -> Image.Image:
    """The image at less than half its brightness, so that parts of it can stand out."""
    return ImageEnhance.Brightness(image).enhance(0.4)


def frame_crops(image: Image.Image, crops: Sequence[CropScore]) -> Image.Image:
    """The image, dark but for these crops, which have a frame."""
    shown = darkened(image)
    width, height = image.size
    boxes = [
        (round(left * width), round(top * height), round(right * width), round(bottom * height))
        for left, top, right, bottom in (crop.window for crop in crops)
    ]
    for box in boxes:
        shown.paste(image.crop(box), box[:2])
    draw = ImageDraw.Draw(shown)
    for left, top, right, bottom in boxes:
        # Two colours stand out from any picture.
        draw.rectangle((left, top, right - 1, bottom - 1), outline="black", width=4)
        draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline="white", width=2)
    return shown
