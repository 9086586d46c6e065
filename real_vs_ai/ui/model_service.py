"""Check the uploads of all sessions of the app with one shared model.

service = ModelService(Path("models/released/model.h5"))
check = service.check(data, digest=content_digest(data))
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from real_vs_ai.images import DecodedImage
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.shared_model import SharedModel, as_unavailable
from real_vs_ai.ui.checking import ImageCheck, check_image, decode_upload


class ModelService(SharedModel):
    """A `SharedModel` that decodes uploads as well."""

    def __init__(self, path: Path, *, open_detector: Callable[[Path], Detector] = Detector.open):
        """See `SharedModel`."""
        super().__init__(path, open_detector=open_detector)
        # A 12-megapixel image takes 36 MB: only as many are decoded at once as there are cores.
        self._decoding = threading.BoundedSemaphore(os.cpu_count() or 2)

    def check(self, data: bytes, *, digest: str) -> ImageCheck:
        """`check_image` with this model.

        Raises:
            ModelUnavailableError: The model cannot answer.
        """
        with self._decoding, as_unavailable():
            return check_image(data, digest=digest, submit=self.submit)

    def decode(self, data: bytes) -> DecodedImage:
        """`decode_upload`, with no more at a time than there are cores."""
        with self._decoding:
            return decode_upload(data)
