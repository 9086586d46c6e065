"""Where images come from: uploaded files, the camera, or the examples that come with the app.

for image in ask_for_images():
    image.name, image.getvalue()
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import streamlit as st

from real_vs_ai.config import IMAGE_EXTENSIONS
from real_vs_ai.images import describe_formats, is_image_name
from real_vs_ai.ui.checking import MAX_BYTES, MAX_IMAGES, MAX_TOTAL_BYTES

_EXAMPLES_DIR = Path(__file__).with_name("examples")
_UPLOAD, _CAMERA, _EXAMPLES = "Upload", "Camera", "Examples"
_REFUSED_KEY = "refused_bytes"
_ICONS = {
    _UPLOAD: ":material/upload:",
    _CAMERA: ":material/photo_camera:",
    _EXAMPLES: ":material/imagesmode:",
}


class ImageFile(Protocol):
    """A file held in memory, as Streamlit's uploader gives it."""

    name: str
    file_id: str

    def getvalue(self) -> bytes:
        """The file's bytes."""


@dataclass(frozen=True)
class ExampleFile:
    """An example image; an `ImageFile`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def file_id(self) -> str:
        return f"example-{self.path.name}"

    def getvalue(self) -> bytes:
        return self.path.read_bytes()


def ask_for_images() -> list[ImageFile]:
    """Show the inputs; returns what the user gave, at most MAX_IMAGES."""
    source = st.segmented_control(
        "Where the images come from",
        [_UPLOAD, _CAMERA, _EXAMPLES],
        default=_UPLOAD,
        format_func=lambda name: f"{_ICONS[name]} {name}",
        required=True,
        key="image_source",
        label_visibility="collapsed",
    )
    if source == _CAMERA:
        picture = st.camera_input("Take a picture", key=f"camera_{_number()}")
        return [picture] if picture else []
    if source == _EXAMPLES:
        return _choose_examples()
    return _upload()


def clear_images() -> None:
    """Empty the inputs: a new key is a new, empty widget."""
    st.session_state["input_number"] = _number() + 1


def _number() -> int:
    return st.session_state.get("input_number", 0)


def _upload() -> list[ImageFile]:
    files = st.file_uploader(
        "Images to check",
        type=sorted(extension[1:] for extension in IMAGE_EXTENSIONS),
        accept_multiple_files=True,
        key=f"uploads_{_number()}",
        help=f"{describe_formats()}; up to {MAX_BYTES // 2**20} MB each, {MAX_IMAGES} at a time.",
    )
    total = sum(file.size for file in files)
    if total > MAX_TOTAL_BYTES:
        # Emptied at once: so much memory belongs to all visitors.
        clear_images()
        st.session_state[_REFUSED_KEY] = total
        st.rerun()
    refused = st.session_state.pop(_REFUSED_KEY, None)
    if refused and not files:
        st.error(
            f"These files were let go: together {refused / 2**20:,.0f} MB, the limit is "
            f"{MAX_TOTAL_BYTES / 2**20:,.0f} MB. Upload fewer at a time, or score them with "
            "`python ImageScoring.py FOLDER`.",
            icon=":material/error:",
        )
    if len(files) > MAX_IMAGES:
        st.warning(
            f"Up to {MAX_IMAGES:,} images at a time: the first {MAX_IMAGES:,} of these "
            f"{len(files):,} are checked. `python ImageScoring.py FOLDER` takes any number.",
            icon=":material/warning:",
        )
    return list(files[:MAX_IMAGES])


def _choose_examples() -> list[ImageFile]:
    examples = {path.name: path for path in sorted(_EXAMPLES_DIR.iterdir()) if is_image_name(path)}
    chosen = st.pills(
        "Examples",
        list(examples),
        format_func=lambda name: Path(name).stem.replace("-", " "),
        selection_mode="multi",
        key=f"examples_{_number()}",
    )
    st.caption(
        "Photographs are real. Re-synthesised ones carry traces that image generators leave; "
        "drawn ones are computed. None was made by an image generator."
    )
    return [ExampleFile(examples[name]) for name in chosen]
