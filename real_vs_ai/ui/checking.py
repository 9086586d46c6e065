"""Turn uploaded bytes into what a card shows; no Streamlit here.

An upload is decoded in memory and never written to disk. Of its pixels only a small preview is
kept.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from PIL import Image

from real_vs_ai.config import MAX_IMAGE_PIXELS, SEED
from real_vs_ai.errors import one_line
from real_vs_ai.images import DecodedImage, ImageError, decode_image
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.perturbations import PERTURBATIONS
from real_vs_ai.provenance import Finding, read_provenance
from real_vs_ai.serving.judging_queue import ModelUnavailableError
from real_vs_ai.verdict import Verdict, apply_stability, apply_thresholds

MAX_IMAGES = 500
# The same as `server.maxUploadSize` in .streamlit/config.toml, which bounds uploads only.
MAX_BYTES = 50 * 2**20
# The files that one visitor holds at a time.
MAX_TOTAL_BYTES = 2**30
# The uploads of all visitors together.
MAX_SERVER_BYTES = 2 * 2**30
MAX_PIXELS = MAX_IMAGE_PIXELS
# Longest sides in pixels.
_PREVIEW_SIZE = 640
_THUMBNAIL_SIZE = 96
# The longest side of a picture that is shown is at most so many times the shortest.
MOST_RATIO = 40


@dataclass(frozen=True)
class ImageCheck:
    """What is known of one uploaded content, whatever its files are called.

    Attributes:
        digest: SHA-256 of the bytes.
        verdict: None when the image cannot be read.
        error: One line that says why it cannot be read, otherwise "".
        width: In pixels, upright; 0 when unreadable.
        height: As width.
        format: The real format: "JPEG", …
        notes: What was done to it in decoding, one sentence each.
        provenance: What its metadata say of its origin: evidence apart from the verdict, never
            part of it.
        preview: A JPEG of the upright image for cards, or b"".
        thumbnail: A smaller one for tables, or b"".
    """

    digest: str
    verdict: Verdict | None = None
    error: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    notes: tuple[str, ...] = ()
    provenance: tuple[Finding, ...] = ()
    preview: bytes = b""
    thumbnail: bytes = b""


@dataclass(frozen=True)
class CheckedUpload:
    """One uploaded file.

    Attributes:
        name: As the browser sent it: do not trust it.
        same_as: The name of an earlier file with the same content, or "".
    """

    name: str
    check: ImageCheck
    same_as: str = ""


def content_digest(data: bytes) -> str:
    """SHA-256 of the bytes in hexadecimal: the same content has the same verdict."""
    return hashlib.sha256(data).hexdigest()


def check_image(
    data: bytes, *, digest: str, submit: Callable[[DecodedImage], Future[Verdict]]
) -> ImageCheck:
    """Decode and judge one image; one that cannot be read becomes a check with its error."""
    try:
        image = decode_upload(data)
    except ImageError as error:
        return ImageCheck(digest=digest, error=str(error))
    # An error of one image must not spoil the answers of the others.
    try:
        answer = submit(image)
        # The detector works meanwhile.
        preview = fit_to_screen(_thin_out(image.image), longest_side=_PREVIEW_SIZE)
        provenance = read_provenance(data, image.image)
        verdict = answer.result()
    except ModelUnavailableError:
        raise
    except Exception as error:
        return ImageCheck(digest=digest, error=f"cannot be checked: {one_line(error)}")
    return ImageCheck(
        digest=digest,
        width=image.width,
        height=image.height,
        format=image.format,
        notes=image.notes,
        provenance=provenance,
        preview=_to_jpeg(preview),
        thumbnail=_to_jpeg(fit_to_screen(preview, longest_side=_THUMBNAIL_SIZE)),
        verdict=verdict,
    )


def decode_upload(data: bytes) -> DecodedImage:
    """`images.decode_image` with the app's limits."""
    return decode_image(data, max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES)


def name_duplicates(checks: Iterable[tuple[str, ImageCheck]]) -> list[CheckedUpload]:
    """Uploads in their order; each that repeats an earlier content names the first one."""
    first_names: dict[str, str] = {}
    uploads = []
    for name, check in checks:
        uploads.append(CheckedUpload(name, check, same_as=first_names.get(check.digest, "")))
        first_names.setdefault(check.digest, name)
    return uploads


@dataclass(frozen=True)
class Variant:
    """One changed copy of an image.

    Attributes:
        name: The change, for people: "reducing to half".
        verdict: The detector's verdict on the copy.
    """

    name: str
    verdict: Verdict


def judge_variants(
    pixels: np.ndarray, *, predict_batch: Callable[[list[np.ndarray]], list[Verdict]]
) -> tuple[Variant, ...]:
    """Change an image, shape (height, width, 3), uint8, as the app does, and judge each copy."""
    variants = []
    # A dozen copies of a large photograph at a time would fill the memory.
    for perturbation in PERTURBATIONS:
        if perturbation.phrase:
            (verdict,) = predict_batch([perturbation.apply(pixels, seed=SEED)])
            variants.append(Variant(perturbation.phrase, verdict))
    return tuple(variants)


@dataclass(frozen=True)
class JudgedUpload:
    """An uploaded file with the verdict to show.

    Attributes:
        verdict: The verdict to show; None when the image cannot be read.
        own: The verdict on the image itself, before the changed copies were judged.
        variants: The changed copies, if they were judged, with the same thresholds.
        flipped_by: The changes that turn the verdict into another class.
    """

    upload: CheckedUpload
    verdict: Verdict | None
    own: Verdict | None
    variants: tuple[Variant, ...] = ()
    flipped_by: tuple[str, ...] = ()


def judge_upload(
    upload: CheckedUpload,
    *,
    variants: Sequence[Variant],
    model: ModelMetadata,
    chosen: ModelMetadata,
) -> JudgedUpload:
    """Apply thresholds and stability to one checked file.

    Args:
        variants: Verdicts on changed copies, or none when they were not asked for.
        model: The metadata that the detector decided with.
        chosen: The same with the thresholds that the user chose.
    """
    if upload.check.verdict is None:
        return JudgedUpload(upload, verdict=None, own=None)

    def judge(verdict: Verdict) -> Verdict:
        return verdict if chosen == model else apply_thresholds(verdict, chosen)

    own = judge(upload.check.verdict)
    judged = tuple(Variant(variant.name, judge(variant.verdict)) for variant in variants)
    verdict, flipped_by = apply_stability(own, [(v.name, v.verdict) for v in judged])
    return JudgedUpload(upload, verdict, own, judged, flipped_by)


def _thin_out(image: Image.Image) -> Image.Image:
    """The image with whole rows and columns left out, still twice the size of a preview.

    Reading all 12 megapixels of a photograph once more would take longer than judging it.
    """
    step = max(1, max(image.size) // (2 * _PREVIEW_SIZE))
    size = (-(-image.width // step), -(-image.height // step))
    return image if step == 1 else image.resize(size, Image.Resampling.NEAREST)


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


def _to_jpeg(image: Image.Image) -> bytes:
    """A JPEG without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()
