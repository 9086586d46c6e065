"""Take images from uploads, the clipboard, the camera or the app's examples, and hold them.

Streamlit forgets an uploader's files when a page is drawn without it, and its server keeps the
bytes of every upload until the session ends. Here a session keeps the files it showed last until
they are cleared, and the server keeps no others. A zip counts as a folder, and is read in memory.
"""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from real_vs_ai.errors import one_line
from real_vs_ai.images import ImageError, describe_formats
from real_vs_ai.reporting import plural
from real_vs_ai.serving.image_sources import list_zip_images, read_zip_entry
from real_vs_ai.ui.wording import visible

MAX_IMAGES = 500
# The same as `server.maxUploadSize` in .streamlit/config.toml, which bounds uploads only.
MAX_BYTES = 50 * 2**20
# The files that one visitor holds at a time.
MAX_TOTAL_BYTES = 2**30
# The uploads of all visitors together.
MAX_SERVER_BYTES = 2 * 2**30
_UPLOAD, _PASTE, _CAMERA, _EXAMPLES = "Upload", "Paste", "Camera", "Examples"
_SOURCES = (_UPLOAD, _PASTE, _CAMERA, _EXAMPLES)
_HELD_KEY, _SEEN_KEY = "held_files", "seen_file_ids"
_ZIPS_KEY, _ZIP = "zips", ".zip"
# Python's reader makes an object of each entry of the directory before anything can be counted.
_MOST_ENTRIES = 20_000
_ENTRY_SIGNATURE = b"PK\x01\x02"
# How many bytes each session keeps of each file, whether or not the server keeps it.
_HELD_SIZES: dict[str, dict[str, int]] = {}
_PAYLOAD_TOO_LARGE, _INSUFFICIENT_STORAGE = 413, 507


@dataclass(frozen=True)
class LocalFile:
    """A file that no widget holds: one of a zip, or one of the app's own pictures.

    Attributes:
        getvalue: Raises ImageError where a file of a zip cannot be read.
        label: The true class of one of the app's own pictures.
        caption: A sentence on one of the app's own pictures.
    """

    name: str
    file_id: str
    getvalue: Callable[[], bytes]
    label: str = ""
    caption: str = ""


# A file held in memory.
ImageFile = UploadedFile | LocalFile


def _example(name: str, label: str, caption: str) -> LocalFile:
    path = Path(__file__).with_name("examples") / name
    return LocalFile(name, f"example-{name}", path.read_bytes, label, caption)


EXAMPLE_FILES = (
    _example("photograph-cat-small.jpg", "Real", "A photograph, reduced to 32 × 32 pixels."),
    _example(
        "generated-cup-small.jpg",
        "Fake",
        "Generated: a neural network painted a cup out of pieces of the cat; reduced to 32 × 32 "
        "pixels.",
    ),
    _example(
        "generated-rocket.jpg",
        "Fake",
        "Generated: a neural network repainted a photograph of a rocket in other colours.",
    ),
)


def example_of(file: ImageFile) -> LocalFile | None:
    """The file, when it is one of the app's examples."""
    return file if isinstance(file, LocalFile) and file.caption else None


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
            "A photograph and two generated pictures: one answer is right, one is wrong, and one "
            "picture the released models do not judge. Other models may say something else."
        )
        return list(EXAMPLE_FILES)
    files = _unpacked({_UPLOAD: _upload, _PASTE: _paste, _CAMERA: _photograph}[source]())
    if len(files) > MAX_IMAGES:
        st.warning(
            f"The page checks up to {MAX_IMAGES:,} pictures at a time: the first {MAX_IMAGES:,} of "
            f"these {len(files):,}. `python ImageScoring.py FOLDER` takes any number.",
            icon=":material/warning:",
        )
    return files[:MAX_IMAGES]


def _unpacked(files: Sequence[ImageFile]) -> list[ImageFile]:
    """The files, with the pictures of each zip in its place; a zip is opened once in a session."""
    known: dict[str, list[ImageFile]] = st.session_state.get(_ZIPS_KEY, {})
    zips = {
        file.file_id: known.get(file.file_id)
        or open_zip(visible(file.name), file.file_id, file.getvalue())
        for file in files
        if file.name.lower().endswith(_ZIP)
    }
    st.session_state[_ZIPS_KEY] = zips
    return [one for file in files for one in zips.get(file.file_id, [file])]


def open_zip(name: str, file_id: str, data: bytes) -> list[LocalFile]:
    """The pictures in a zip, sorted by name; of one that cannot be read, a file that says why."""
    try:
        archive = _open(data)
        images = list(list_zip_images(archive))
    except ImageError as error:
        return [_refused(name, file_id, str(error))]
    if not images:
        return [_refused(name, file_id, "a zip without pictures in it")]
    if sum(archive.infolist()[index].file_size for _, index in images) > MAX_TOTAL_BYTES:
        limit = f"{MAX_TOTAL_BYTES / 2**20:,.0f} MB"
        return [_refused(name, file_id, f"a zip of more than {limit} of pictures")]
    return [
        LocalFile(
            f"{name}/{inner}",
            f"{file_id}/{index}",
            lambda index=index: read_zip_entry(archive, index, max_bytes=MAX_BYTES),
        )
        for inner, index in images
    ]


def _open(data: bytes) -> zipfile.ZipFile:
    if data.count(_ENTRY_SIGNATURE) > _MOST_ENTRIES:
        raise ImageError(f"a zip of more than {_MOST_ENTRIES:,} files")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ImageError(f"not a readable zip: {one_line(error)}") from error


def _refused(name: str, file_id: str, reason: str) -> LocalFile:
    def refuse() -> bytes:
        raise ImageError(reason)

    return LocalFile(name, file_id, refuse)


def clear_images() -> None:
    """Empty the inputs: a new key is a new, empty widget."""
    forget_files()
    st.session_state["input_number"] = _number() + 1


def _number() -> int:
    return st.session_state.get("input_number", 0)


def _upload() -> list[ImageFile]:
    key = f"uploads_{_number()}"
    kept = kept_files(_UPLOAD, key=key)
    # No filter of types: the page says why a file is no picture, a filter only on hovering.
    files = st.file_uploader(
        "Images to check", accept_multiple_files=True, key=key, label_visibility="collapsed"
    )
    if not kept and not files:
        st.caption(
            "Drag and drop pictures here, or a zip of them, or click to choose. "
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
    """The files kept from earlier, then those that the widget holds."""
    live_ids = {file.file_id for file in live}
    earlier = [file for file in kept if file.file_id not in live_ids]
    if earlier:
        st.caption(f"Showing {plural(len(earlier), 'picture')} you uploaded earlier.")
    files = [*earlier, *live]
    remember_files(source, files, live=live)
    return files


def kept_files(source: str, *, key: str | None) -> list[ImageFile]:
    """Files of a source that its widget has forgotten; call it before the widget is drawn.

    Args:
        source: Where they come from: "Upload", …
        key: The widget's key; where the session knows it, the widget was there a moment ago and
            still holds its files itself. None for a widget that hands out its files once.
    """
    shown = st.session_state.get(_HELD_KEY, {}).get(source, [])
    if key is None or key not in st.session_state:
        return list(shown)
    return [file for file in shown if file.file_id not in st.session_state.get(_SEEN_KEY, ())]


def remember_files(
    source: str, files: Sequence[ImageFile], *, live: Sequence[ImageFile] = ()
) -> None:
    """Keep these files for when their widget is gone.

    Args:
        source: As for `kept_files`.
        files: All files of the source.
        live: Those that a widget holds now. What widgets held before leaves the server's memory.
    """
    held = st.session_state.setdefault(_HELD_KEY, {})
    held[source] = list(files)
    context = get_script_run_ctx()
    _HELD_SIZES[context.session_id] = {
        file.file_id: file.size for files in held.values() for file in files
    }
    seen: set[str] = st.session_state.get(_SEEN_KEY, set())
    live_ids = {file.file_id for file in live}
    # Other uploads may be on their way, so only what was seen here is removed.
    for file_id in seen - live_ids:
        context.uploaded_file_mgr.remove_file(context.session_id, file_id)
    st.session_state[_SEEN_KEY] = live_ids


def forget_files() -> None:
    """Forget all kept files."""
    st.session_state.pop(_HELD_KEY, None)
    _HELD_SIZES.pop(get_script_run_ctx().session_id, None)


@functools.cache
def bound_uploads() -> None:
    """Let the server keep uploads in memory, as far as a visitor, and all together, may fill it.

    Streamlit itself puts large files on disk, and bounds a single file only: a program that uploads
    without end would fill the machine's memory.
    """
    # A request holds some kilobytes besides the file.
    MultiPartParser.spool_max_size = MAX_BYTES + 2**20
    add_file = MemoryUploadedFileManager.add_file

    def add_if_there_is_room(
        manager: MemoryUploadedFileManager, session_id: str, file: UploadedFileRec
    ) -> None:
        sizes = _bytes_by_session(manager)
        if sizes.get(session_id, 0) + len(file.data) > MAX_TOTAL_BYTES:
            raise HTTPException(_PAYLOAD_TOO_LARGE, "Too many bytes at a time; clear some images.")
        if sum(sizes.values()) + len(file.data) > MAX_SERVER_BYTES:
            raise HTTPException(_INSUFFICIENT_STORAGE, "The server is full; try again later.")
        add_file(manager, session_id, file)

    def forget_session(manager: MemoryUploadedFileManager, session_id: str) -> None:
        _HELD_SIZES.pop(session_id, None)
        remove_session_files(manager, session_id)

    remove_session_files = MemoryUploadedFileManager.remove_session_files
    MemoryUploadedFileManager.add_file = add_if_there_is_room
    MemoryUploadedFileManager.remove_session_files = forget_session


def _bytes_by_session(manager: MemoryUploadedFileManager) -> dict[str, int]:
    """What each visitor holds: the server's files and those kept here, which may be the same."""
    sizes = {session: dict(held) for session, held in list(_HELD_SIZES.items())}
    for session, files in list(manager.file_storage.items()):
        stored = {file_id: len(record.data) for file_id, record in list(files.items())}
        sizes.setdefault(session, {}).update(stored)
    return {session: sum(held.values()) for session, held in sizes.items()}
