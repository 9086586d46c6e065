"""A session's image files: kept while the user is elsewhere, let go of when they are done with.

    kept = kept_files("Upload", key="uploads_0")        # before the widget is drawn
    remember_files("Upload", [*kept, *files], live=files)

Streamlit forgets an uploader's files when a page is drawn without it, and its server keeps the
bytes of every upload until the session ends. Here both are the other way round: a session keeps
the files it showed last, until they are cleared, and the server no others.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import streamlit as st
from starlette.exceptions import HTTPException
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from real_vs_ai.ui.checking import MAX_SERVER_BYTES, MAX_TOTAL_BYTES

_HELD_KEY, _SEEN_KEY = "held_files", "seen_file_ids"
_PAYLOAD_TOO_LARGE, _INSUFFICIENT_STORAGE = 413, 507


class ImageFile(Protocol):
    """A file held in memory, as Streamlit's uploader gives it."""

    name: str
    file_id: str
    size: int

    def getvalue(self) -> bytes:
        """The file's bytes."""


def kept_files(source: str, *, key: str | None) -> list[ImageFile]:
    """Files of a source that its widget has forgotten; call it before the widget is drawn.

    Args:
        source: Where they come from: "Upload", …
        key: The widget's key; where the session knows it, the widget was there a moment ago and
            still holds its files itself. None for a widget that hands out its files once.
    """
    held = st.session_state.setdefault(_HELD_KEY, {}).setdefault(source, {"shown": [], "kept": []})
    if key is None or key not in st.session_state:
        held["kept"] = held["shown"]
    return list(held["kept"])


def remember_files(
    source: str, files: Sequence[ImageFile], *, live: Sequence[ImageFile] = ()
) -> None:
    """Keep these files for when their widget is gone.

    Args:
        source: As for `kept_files`.
        files: All files of the source.
        live: Those that a widget holds now. What widgets held before leaves the server's memory.
    """
    held = st.session_state.setdefault(_HELD_KEY, {}).setdefault(source, {"shown": [], "kept": []})
    held["shown"] = list(files)
    context = get_script_run_ctx()
    seen: set[str] = st.session_state.get(_SEEN_KEY, set())
    live_ids = {file.file_id for file in live}
    # Only what was seen here: another upload may be on its way at this moment.
    for file_id in seen - live_ids:
        context.uploaded_file_mgr.remove_file(context.session_id, file_id)
    st.session_state[_SEEN_KEY] = live_ids


def forget_files() -> None:
    """Let go of all kept files."""
    st.session_state.pop(_HELD_KEY, None)


@functools.cache
def bound_uploads() -> None:
    """Let the server refuse uploads beyond what a visitor, and all together, may hold.

    Streamlit itself bounds a single file only, so a program that uploads without end would fill
    the machine's memory.
    """
    add_file = MemoryUploadedFileManager.add_file

    def add_if_there_is_room(
        manager: MemoryUploadedFileManager, session_id: str, file: UploadedFileRec
    ) -> None:
        sizes = {
            session: sum(len(held.data) for held in list(files.values()))
            for session, files in list(manager.file_storage.items())
        }
        if sizes.get(session_id, 0) + len(file.data) > MAX_TOTAL_BYTES:
            raise HTTPException(_PAYLOAD_TOO_LARGE, "Too many bytes at a time; clear some images.")
        if sum(sizes.values()) + len(file.data) > MAX_SERVER_BYTES:
            raise HTTPException(_INSUFFICIENT_STORAGE, "The server is full; try again later.")
        add_file(manager, session_id, file)

    MemoryUploadedFileManager.add_file = add_if_there_is_room
