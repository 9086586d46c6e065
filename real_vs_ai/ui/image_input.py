"""Take images from uploads, the clipboard, the camera or the app's examples.

for image in ask_for_images():
    image.name, image.getvalue()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from real_vs_ai.images import describe_formats
from real_vs_ai.reporting import plural
from real_vs_ai.ui.checking import MAX_BYTES, MAX_IMAGES, MAX_TOTAL_BYTES
from real_vs_ai.ui.held_files import ImageFile, forget_files, held_bytes, kept_files, remember_files

_EXAMPLES_DIR = Path(__file__).with_name("examples")
_UPLOAD, _PASTE, _CAMERA, _EXAMPLES = "Upload", "Paste", "Camera", "Examples"
_REFUSED_KEY = "refused_bytes"
_SOURCES = (_UPLOAD, _PASTE, _CAMERA, _EXAMPLES)


@dataclass(frozen=True)
class Example:
    """One of the app's own pictures; an `ImageFile`.

    Attributes:
        name: Of its file.
        label: What it truly is: "Fake" or "Real".
        caption: The same for people, in a sentence.
    """

    name: str
    label: str
    caption: str

    @property
    def file_id(self) -> str:
        return f"example-{self.name}"

    @property
    def size(self) -> int:
        return (_EXAMPLES_DIR / self.name).stat().st_size

    def getvalue(self) -> bytes:
        return (_EXAMPLES_DIR / self.name).read_bytes()


_EXAMPLE_FILES = (
    Example(
        "generated-squirrel-small.png",
        "Fake",
        "Generated: “a painting of a squirrel eating a burger”, reduced to 32 × 32 pixels.",
    ),
    Example("photograph-cat-small.jpg", "Real", "A photograph, reduced to 32 × 32 pixels."),
    Example(
        "generated-mouse-small.png",
        "Fake",
        "Generated: “an animal half mouse half octopus”, reduced to 32 × 32 pixels.",
    ),
    Example(
        "generated-squirrel.jpg", "Fake", "Generated: the same squirrel as large as it was made."
    ),
)


def example_of(file: ImageFile) -> Example | None:
    """The file, when it is one of the app's examples."""
    return file if isinstance(file, Example) else None


def ask_for_images() -> list[ImageFile]:
    """Show the inputs; returns what the user gave, at most MAX_IMAGES."""
    source = st.segmented_control(
        "Where the pictures come from",
        _SOURCES,
        default=_UPLOAD,
        required=True,
        key="image_source",
        label_visibility="collapsed",
        persist_state="session",
    )
    if source == _EXAMPLES:
        st.caption(
            "Three generated pictures and a photograph: verdicts that are right, one that is wrong "
            "and one that this model refuses to give. Other models may judge them differently."
        )
        return list(_EXAMPLE_FILES)
    files = {_UPLOAD: _upload, _PASTE: _paste, _CAMERA: _photograph}[source]()
    _refuse_too_many_bytes(files)
    if len(files) > MAX_IMAGES:
        st.warning(
            f"The page checks up to {MAX_IMAGES:,} pictures at a time: the first {MAX_IMAGES:,} of "
            f"these {len(files):,}. `python ImageScoring.py FOLDER` takes any number.",
            icon=":material/warning:",
        )
    return files[:MAX_IMAGES]


def clear_images() -> None:
    """Empty the inputs: a new key is a new, empty widget."""
    forget_files()
    st.session_state["input_number"] = _number() + 1


def _number() -> int:
    return st.session_state.get("input_number", 0)


def _upload() -> list[ImageFile]:
    key = f"uploads_{_number()}"
    kept = kept_files(_UPLOAD, key=key)
    # Any type: a file that is no picture gets a reason on the page, not only on hovering.
    files = st.file_uploader(
        "Images to check", accept_multiple_files=True, key=key, label_visibility="collapsed"
    )
    if not kept and not files:
        st.caption(
            f"{describe_formats()}; up to {MAX_BYTES // 2**20} MB each and {MAX_IMAGES} at a time."
        )
    return _joined(_UPLOAD, kept, files)


def _photograph() -> list[ImageFile]:
    key = f"camera_{_number()}"
    kept = kept_files(_CAMERA, key=key)
    picture = st.camera_input("Take a picture", key=key)
    return _joined(_CAMERA, kept, [picture] if picture else [])


def _paste() -> list[ImageFile]:
    """Streamlit's message box takes pasted images; what is written there is not used."""
    key = f"paste_{_number()}"
    kept = kept_files(_PASTE, key=None)
    with st.container():
        message = st.chat_input(
            "Paste an image here (Ctrl+V), then press Enter", accept_file="multiple", key=key
        )
    files = [*kept, *(message.files if message else ())]
    remember_files(_PASTE, files)
    return files


def _joined(source: str, kept: Sequence[ImageFile], live: Sequence[ImageFile]) -> list[ImageFile]:
    """The files kept from before with those that the widget holds."""
    live_ids = {file.file_id for file in live}
    earlier = [file for file in kept if file.file_id not in live_ids]
    if earlier:
        st.caption(f"Showing {plural(len(earlier), 'picture')} you uploaded earlier.")
    files = [*earlier, *live]
    remember_files(source, files, live=live)
    return files


def _refuse_too_many_bytes(files: Sequence[ImageFile]) -> None:
    total = held_bytes()
    if total > MAX_TOTAL_BYTES:
        # Emptied at once: so much memory belongs to all visitors.
        clear_images()
        st.session_state[_REFUSED_KEY] = total
        st.rerun()
    refused = st.session_state.pop(_REFUSED_KEY, None)
    if refused and not files:
        st.error(
            f"These files are too large together: {refused / 2**20:,.0f} MB, the limit is "
            f"{MAX_TOTAL_BYTES / 2**20:,.0f} MB. The page has forgotten them. Upload fewer at a "
            "time, or use `python ImageScoring.py FOLDER`.",
            icon=":material/error:",
        )
