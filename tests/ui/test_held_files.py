"""Session and server hold uploads as long as the user sees them, within limits."""

from __future__ import annotations

import types

import pytest
from starlette.exceptions import HTTPException
from streamlit.proto.Common_pb2 import FileURLs as FileURLsProto
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from real_vs_ai.ui import image_input


@pytest.fixture
def server(monkeypatch) -> MemoryUploadedFileManager:
    """Streamlit's memory of uploads, and a session "s" of it."""
    manager = MemoryUploadedFileManager("/upload")
    context = types.SimpleNamespace(session_id="s", uploaded_file_mgr=manager)
    monkeypatch.setattr(image_input, "get_script_run_ctx", lambda: context)
    # Other tests of this process may have left uploads.
    monkeypatch.setattr(image_input, "_HELD_SIZES", type(image_input._HELD_SIZES)())
    monkeypatch.setattr(image_input, "st", types.SimpleNamespace(session_state={}))
    return manager


def put(server, file_id: str, *, size: int = 10, session: str = "s") -> UploadedFileRec:
    record = UploadedFileRec(file_id=file_id, name="a.png", type="image/png", data=b"x" * size)
    server.add_file(session, record)
    return UploadedFile(record, FileURLsProto())


def held_by(server, *file_ids: str) -> list[str]:
    return [record.file_id for record in server.get_files("s", file_ids)]


def test_server_frees_uploads_that_no_widget_holds(server):
    first, second = put(server, "1"), put(server, "2")
    image_input.remember_files("upload", [first, second], live=[first, second])
    # On its way: its run has not begun.
    put(server, "3")
    image_input.remember_files("upload", [first, second], live=[second])
    assert held_by(server, "1", "2", "3") == ["2", "3"]
    image_input.remember_files("examples", [])
    assert held_by(server, "1", "2", "3") == ["3"]


def test_files_are_kept_only_when_their_widget_has_forgotten_them(server):
    session = image_input.st.session_state
    assert image_input.kept_files("upload", key="uploads_0") == []
    first = put(server, "1")
    image_input.remember_files("upload", [first], live=[first])
    session["uploads_0"] = [first]
    assert image_input.kept_files("upload", key="uploads_0") == []
    del session["uploads_0"]
    assert image_input.kept_files("upload", key="uploads_0") == [first]
    image_input.forget_files()
    assert image_input.kept_files("upload", key="uploads_1") == []


def test_server_limits_bytes_per_visitor_and_in_total(server, monkeypatch):
    for name in ("add_file", "remove_session_files"):
        original = getattr(MemoryUploadedFileManager, name)
        monkeypatch.setattr(MemoryUploadedFileManager, name, original)
    monkeypatch.setattr(image_input, "MAX_TOTAL_BYTES", 100)
    monkeypatch.setattr(image_input, "MAX_SERVER_BYTES", 150)
    image_input.bound_uploads.__wrapped__()
    first = put(server, "1", size=90)
    with pytest.raises(HTTPException) as refused:
        put(server, "2", size=20)
    assert refused.value.status_code == 413
    # Let go of by the server and kept by the session, it counts as before.
    image_input.remember_files("upload", [first], live=[first])
    image_input.remember_files("camera", [])
    assert held_by(server, "1") == []
    with pytest.raises(HTTPException) as refused:
        put(server, "2", size=20)
    assert refused.value.status_code == 413
    with pytest.raises(HTTPException) as refused:
        put(server, "3", size=80, session="other")
    assert refused.value.status_code == 507
    put(server, "4", size=60, session="other")
    image_input.forget_files()
    fifth = put(server, "5", size=90)
    assert held_by(server, "1", "2", "5") == ["5"]
    image_input.remember_files("upload", [fifth], live=[fifth])
    image_input.remember_files("camera", [])
    server.remove_session_files("s")
    put(server, "6", size=90)
