"""A visitor of the app without a browser: speaks Streamlit's protocol over HTTP and WebSocket.

with AppClient("localhost", 8501) as visitor:
    page = visitor.load()                                     # texts of the first page
    page = visitor.upload({"photo.jpg": data})                # texts of the page with the verdict
"""

from __future__ import annotations

import contextlib
import http.client
import uuid
from dataclasses import dataclass, field

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileUploaderState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

_XSRF_COOKIE = "_streamlit_xsrf"


@dataclass
class Page:
    """What one run of the script drew.

    Attributes:
        texts: Markdown, text and caption bodies, in the order they came.
        uploader_id: The file uploader's widget id, or "".
        failed: Whether the script ended with an uncaught error.
    """

    texts: list[str] = field(default_factory=list)
    uploader_id: str = ""
    failed: bool = False


class AppClient:
    """One session; the connection lives between `with` and its end."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 60.0):
        self._host, self._port, self._timeout_s = host, port, timeout_s
        self._socket: ClientConnection | None = None
        self._opened = contextlib.ExitStack()
        self._xsrf = ""
        self._uploader_id = ""
        self._session_id = ""

    def __enter__(self) -> AppClient:
        response = self._get("/_stcore/health")
        cookie = response.getheader("set-cookie", "")
        if _XSRF_COOKIE in cookie:
            self._xsrf = cookie.split(f"{_XSRF_COOKIE}=", 1)[1].split(";", 1)[0].strip('"')
        connection = connect(
            f"ws://{self._host}:{self._port}/_stcore/stream",
            subprotocols=["streamlit", *filter(None, [self._xsrf])],
            additional_headers={"Cookie": f"{_XSRF_COOKIE}={self._xsrf}"},
            origin=f"http://{self._host}:{self._port}",
            max_size=None,
            open_timeout=self._timeout_s,
        )
        self._socket = self._opened.enter_context(connection)
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def load(self) -> Page:
        """Open the first page."""
        return self._run(BackMsg(rerun_script={}))

    def upload(self, files: dict[str, bytes]) -> Page:
        """Put these files, and no others, into the uploader; returns the page with the verdicts."""
        request = BackMsg()
        request.file_urls_request.request_id = uuid.uuid4().hex
        request.file_urls_request.session_id = self._session_id
        request.file_urls_request.file_names.extend(files)
        self._socket.send(request.SerializeToString())
        urls = self._receive("file_urls_response").file_urls_response.file_urls
        message = BackMsg()
        widget = message.rerun_script.widget_states.widgets.add(id=self._uploader_id)
        state = FileUploaderState()
        for (name, data), url in zip(files.items(), urls, strict=True):
            self._put(url.upload_url, name, data)
            state.uploaded_file_info.add(
                name=name, size=len(data), file_id=url.file_id, file_urls=url
            )
        widget.file_uploader_state_value.CopyFrom(state)
        return self._run(message)

    def _run(self, message: BackMsg) -> Page:
        self._socket.send(message.SerializeToString())
        page = Page()
        while True:
            forward = self._next()
            kind = forward.WhichOneof("type")
            if kind == "new_session":
                self._session_id = forward.new_session.initialize.session_id
            elif kind == "delta" and forward.delta.WhichOneof("type") == "new_element":
                self._note(page, forward.delta.new_element)
            elif kind == "script_finished":
                # The run that a message interrupts ends first; ours is the one that succeeds.
                if forward.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                    page = Page()
                    continue
                page.failed |= forward.script_finished != ForwardMsg.FINISHED_SUCCESSFULLY
                return page

    def _note(self, page: Page, element: object) -> None:
        kind = element.WhichOneof("type")
        if kind in ("markdown", "text", "alert"):
            page.texts.append(getattr(element, kind).body)
        elif kind == "file_uploader":
            page.uploader_id = self._uploader_id = element.file_uploader.id
        elif kind == "exception":
            page.failed = True

    def _receive(self, kind: str) -> ForwardMsg:
        while True:
            forward = self._next()
            if forward.WhichOneof("type") == kind:
                return forward

    def _next(self) -> ForwardMsg:
        return ForwardMsg.FromString(self._socket.recv(timeout=self._timeout_s))

    def _get(self, path: str) -> http.client.HTTPResponse:
        return self._request("GET", path, None, {})

    def _put(self, path: str, name: str, data: bytes) -> None:
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
        )
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "X-Xsrftoken": self._xsrf,
            "Cookie": f"{_XSRF_COOKIE}={self._xsrf}",
        }
        response = self._request("PUT", path, body, headers)
        if response.status >= 300:
            raise OSError(f"Expected the upload to be taken, found status {response.status}.")

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        # A connection for each: the server closes those that were silent for some seconds.
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
            return response
        finally:
            connection.close()
