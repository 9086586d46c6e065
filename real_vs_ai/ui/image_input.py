"""Take images from uploads, the clipboard, the camera or the app's examples.

for image in ask_for_images():
    image.name, image.getvalue()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from real_vs_ai.images import IMAGE_EXTENSIONS, describe_formats, is_image_name
from real_vs_ai.reporting import plural
from real_vs_ai.ui.checking import MAX_BYTES, MAX_IMAGES, MAX_TOTAL_BYTES
from real_vs_ai.ui.held_files import ImageFile, forget_files, held_bytes, kept_files, remember_files

_EXAMPLES_DIR = Path(__file__).with_name("examples")
_UPLOAD, _PASTE, _CAMERA, _EXAMPLES = "Upload", "Paste", "Camera", "Examples"
_EXTENSIONS = sorted(extension[1:] for extension in IMAGE_EXTENSIONS)
_REFUSED_KEY = "refused_bytes"
_ICONS = {
    _UPLOAD: ":material/upload:",
    _PASTE: ":material/content_paste:",
    _CAMERA: ":material/photo_camera:",
    _EXAMPLES: ":material/imagesmode:",
}


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

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def getvalue(self) -> bytes:
        return self.path.read_bytes()


def ask_for_images() -> list[ImageFile]:
    """Show the inputs; returns what the user gave, at most MAX_IMAGES."""
    st.session_state.setdefault("image_source", _UPLOAD)
    source = st.segmented_control(
        "Where the images come from",
        list(_ICONS),
        format_func=lambda name: f"{_ICONS[name]} {name}",
        required=True,
        key="image_source",
        label_visibility="collapsed",
    )
    if source == _EXAMPLES:
        return _choose_examples()
    files = {_UPLOAD: _upload, _PASTE: _paste, _CAMERA: _photograph}[source]()
    _refuse_too_many_bytes(files)
    if len(files) > MAX_IMAGES:
        st.warning(
            f"Up to {MAX_IMAGES:,} images at a time: the first {MAX_IMAGES:,} of these "
            f"{len(files):,} are checked. `python ImageScoring.py FOLDER` takes any number.",
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
    files = st.file_uploader(
        "Images to check",
        type=_EXTENSIONS,
        accept_multiple_files=True,
        key=key,
        help=f"{describe_formats()}; up to {MAX_BYTES // 2**20} MB each, {MAX_IMAGES} at a time.",
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
            "Paste an image here (Ctrl+V), then press Enter",
            accept_file="multiple",
            file_type=_EXTENSIONS,
            key=key,
        )
    files = [*kept, *(message.files if message else ())]
    remember_files(_PASTE, files)
    return files


def _joined(source: str, kept: Sequence[ImageFile], live: Sequence[ImageFile]) -> list[ImageFile]:
    """The files kept from before with those that the widget holds."""
    live_ids = {file.file_id for file in live}
    earlier = [file for file in kept if file.file_id not in live_ids]
    if earlier:
        st.caption(f"With {plural(len(earlier), 'image')} from before you went elsewhere.")
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
            f"These files were let go: together {refused / 2**20:,.0f} MB, the limit is "
            f"{MAX_TOTAL_BYTES / 2**20:,.0f} MB. Upload fewer at a time, or score them with "
            "`python ImageScoring.py FOLDER`.",
            icon=":material/error:",
        )


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
