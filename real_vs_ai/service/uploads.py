"""Read the images of a request into memory, within limits.

A request holds one or many files in the multipart field `files`, or one image as its whole body.
Nothing is written to disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from real_vs_ai.service.limits import Limits, RequestError

FIELD = "files"
_MULTIPART = "multipart/form-data"
# A program that sends these expects another kind of service.
_NOT_IMAGES = ("application/json", "text/")
_MOST_OTHER_FIELDS = 10
_LONGEST_NAME = 255


@dataclass(frozen=True)
class Upload:
    """One file of a request; its name is the client's: do not trust it."""

    name: str
    data: bytes


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, which would write files above 1 MB to disk."""

    # No request gets so large: its size is bounded before.
    spool_max_size = 2**40


def declared_size(request: Request, limits: Limits) -> int:
    """How many bytes a request may hold; RequestError if that is too much."""
    text = request.headers.get("content-length")
    # A request without a length may grow to the largest size.
    size = int(text) if text and text.isdecimal() else limits.max_request_bytes
    if size > limits.max_request_bytes:
        raise _too_large(limits)
    return size


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The files of a request, in their order, at least one.

    Raises:
        RequestError: It holds none, too many or too much, is of another kind, or came too slowly.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith(_NOT_IMAGES):
        raise RequestError(
            415,
            "unsupported_media_type",
            f"Expected an image or {_MULTIPART} with the field {FIELD!r}, found {kind[:80]}.",
        )
    try:
        async with asyncio.timeout(limits.receive_seconds):
            if kind == _MULTIPART:
                return await _read_form(request, limits)
            return [await _read_body(request, limits)]
    except TimeoutError as error:
        message = f"Expected the whole request within {limits.receive_seconds:g} s."
        raise RequestError(408, "too_slow", message) from error
    except ClientDisconnect as error:
        raise RequestError(400, "disconnected", "The request ended early.") from error


async def _read_form(request: Request, limits: Limits) -> list[Upload]:
    stream = _bounded(request.stream(), limits)
    parser = _InMemoryParser(
        request.headers, stream, max_files=limits.max_images, max_fields=_MOST_OTHER_FIELDS
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            message = f"Expected at most {limits.max_images} images in a request, found more."
            raise RequestError(413, "too_many_images", message) from error
        raise RequestError(400, "bad_form", f"The form is damaged: {error.message}") from error
    try:
        files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
        if not files:
            found = ", ".join(sorted({repr(name[:80]) for name in form})) or "none"
            raise RequestError(
                400, "no_images", f"Expected files in the field {FIELD!r}, found fields: {found}."
            )
        return [Upload((file.filename or "")[:_LONGEST_NAME], await file.read()) for file in files]
    finally:
        await form.close()


async def _read_body(request: Request, limits: Limits) -> Upload:
    data = b"".join([chunk async for chunk in _bounded(request.stream(), limits)])
    if not data:
        message = f"Expected an image, or files in the field {FIELD!r}, found an empty request."
        raise RequestError(400, "no_images", message)
    return Upload(request.query_params.get("name", "")[:_LONGEST_NAME], data)


async def _bounded(stream: AsyncIterator[bytes], limits: Limits) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in stream:
        received += len(chunk)
        if received > limits.max_request_bytes:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: Limits) -> RequestError:
    limit = f"{limits.max_request_bytes:,} bytes"
    return RequestError(413, "too_large", f"Expected a request of at most {limit}, found more.")
