"""Hold what a card shows of an uploaded picture; no Streamlit here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from real_vs_ai.core.config import SEED
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.messages import Message
from real_vs_ai.perturbations.web_changes import PERTURBATIONS
from real_vs_ai.serving.judge import Answer
from real_vs_ai.ui.wording import visible
from real_vs_ai.verdicts.conclusion import Conclusion
from real_vs_ai.verdicts.verdict import Verdict, apply_stability

if TYPE_CHECKING:
    from real_vs_ai.ui.image_input import ImageFile

# The longest side of a picture that is shown is at most so many times the shortest.
MOST_RATIO = 40


# A change, in words, and the verdict on the changed copy.
Variant = tuple[str, Verdict]


@dataclass(frozen=True)
class Card:
    """An uploaded picture, as it is shown.

    Attributes:
        answer: What is known of it; its name is as the browser sent it.
        preview: A JPEG of the upright image for cards, or b"".
        thumbnail: A smaller one for tables, or b"".
        file: The upload itself; None where the card waits for its page.
        same_as: The name of an earlier file with the same content, or "".
        variants: First "no change" and the verdict on the image itself, then each change that was
            tried ("reducing to half") and the verdict on the changed copy; or none.
    """

    answer: Answer
    preview: bytes = b""
    thumbnail: bytes = b""
    file: ImageFile | None = None
    same_as: str = ""
    variants: tuple[Variant, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict to show; None when the image cannot be judged."""
        return self.answer.verdict

    @property
    def given_verdict(self) -> Verdict:
        """The verdict of an image that was judged; InputError where `verdict` is None."""
        if self.verdict is None:
            raise InputError(f"Expected a verdict on {self.answer.name}, found none.")
        return self.verdict

    def read_file(self) -> bytes:
        """The upload's bytes; InputError where the page no longer holds it."""
        if self.file is None:
            raise InputError(f"Expected the file of {self.answer.name}, found none.")
        return self.file.getvalue()

    @property
    def conclusion(self) -> Conclusion:
        """What to show: the file's evidence and the model's, as one conclusion."""
        return self.answer.conclusion


def name_repeats(cards: Sequence[Card]) -> list[Card]:
    """The cards; each that repeats an earlier content names the first file with it."""
    first_names: dict[str, str] = {}
    named = []
    for card in cards:
        named.append(replace(card, same_as=first_names.get(card.answer.sha256, "")))
        # Of a file that cannot be read, no content is known.
        if card.answer.sha256:
            first_names.setdefault(card.answer.sha256, card.answer.name)
    return named


def describe_file(card: Card) -> list[str]:
    """Size, format, what was done to the picture and which other file it repeats; untrusted."""
    answer = card.answer
    same = [Message("card.same_as", name=visible(card.same_as))] if card.same_as else []
    size = {"width": answer.width, "height": answer.height, "format": visible(answer.format)}
    told = [Message("card.size", **size)] if card.verdict else []
    return [*told, *answer.notes, *same]


def judge_variants(
    pixels: np.ndarray, *, judge: Callable[[np.ndarray], Verdict]
) -> tuple[Variant, ...]:
    """Change an image, shape (height, width, 3), uint8, as the app does, and judge each copy."""
    # One copy at a time: a dozen copies of a large photograph would fill the memory.
    return tuple(
        (perturbation.phrase, judge(perturbation.apply(pixels, seed=SEED)))
        for perturbation in PERTURBATIONS
        if perturbation.phrase
    )


def settle(card: Card, variants: Sequence[Variant]) -> Card:
    """The card with the verdict that holds after these verdicts on changed copies."""
    if card.verdict is None or not variants:
        return card
    answer = replace(card.answer, verdict=apply_stability(card.verdict, variants))
    unchanged = (Message("change.none"), card.verdict)
    return replace(card, answer=answer, variants=(unchanged, *variants))


def fit_to_screen(image: Image.Image, *, longest_side: int) -> Image.Image:
    """The image with no side longer than this, in pixels; tiny ones are enlarged.

    A strip is drawn thicker than it is, up to 1 : `MOST_RATIO`, so that there is something to see.
    """
    scale = longest_side / max(image.size)
    # A browser would blur the few pixels of a tiny image.
    enlarge = int(scale) // 2
    scale = max(enlarge, min(scale, 1.0))
    thinnest = max(1.0, max(image.size) * scale / MOST_RATIO)
    width, height = (max(round(thinnest), round(side * scale)) for side in image.size)
    if (width, height) == image.size:
        return image
    if enlarge > 1:
        return image.resize((width, height), Image.Resampling.NEAREST)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
