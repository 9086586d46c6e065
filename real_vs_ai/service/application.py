"""Build the service's web application: images in requests, verdicts in answers.

It is an ASGI application: uvicorn runs it, tests call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Security
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from real_vs_ai import __version__
from real_vs_ai.service import documents
from real_vs_ai.service.access import Admission, Keys, Limits, RequestError, stopping
from real_vs_ai.service.judging import ServiceJudge
from real_vs_ai.service.requests import (
    CONTENT_TYPE,
    FIELD,
    Counters,
    RequestWatch,
    Upload,
    declared_size,
    read_uploads,
)
from real_vs_ai.serving.judge import Answer
from real_vs_ai.serving.judging_queue import ModelUnavailableError

# More images of one request at a time would only hold up the other requests.
_IMAGES_AT_A_TIME = 32
_RETRY_WHEN_UNREADY = {"Retry-After": "5"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST = {
    "parameters": [
        {
            "name": "name",
            "in": "query",
            "description": "The file's name, where the image is the whole body.",
            "schema": {"type": "string", "default": ""},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {"type": "array", "minItems": 1, "items": _BINARY["schema"]}
                    },
                }
            },
            "application/octet-stream": _BINARY,
            "image/*": _BINARY,
        },
    },
}
_RETRY_HEADER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_KEY_HEADER = {"WWW-Authenticate": {"schema": {"type": "string"}}}
_BEARER = HTTPBearer(auto_error=False, description="A key of the service.")
_KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key.")


def _refusal(text: str, model: Any = documents.ErrorDocument, **more: Any) -> dict[str, Any]:
    return {"description": text, "model": model, **more}


_UNREADY = {
    503: _refusal("The model is not ready, or the service is stopping.", headers=_RETRY_HEADER)
}
_REFUSALS = {
    400: _refusal("No images, or a damaged form."),
    408: _refusal("The request came too slowly."),
    413: _refusal(
        "Too many images, or too large ones. When all files are too large, the entries say so.",
        documents.ErrorDocument | documents.ImagesDocument,
    ),
    415: _refusal("Not images."),
    422: _refusal("No file could be read: the entries say why.", documents.ImagesDocument),
    429: _refusal("Too busy.", headers=_RETRY_HEADER),
    500: _refusal("A fault of the service; its log says more."),
    **_UNREADY,
}


def create_application(
    judge: ServiceJudge, *, limits: Limits, keys: Keys | None, origins: Sequence[str] = ()
) -> FastAPI:
    """The service with this judge.

    Args:
        keys: With keys, only the health addresses and the documentation are open to all.
        origins: Web pages of these origins may ask (CORS).
    """
    # Its pages of documentation load nothing from elsewhere.
    application = FastAPIOffline(
        title="Real or AI?",
        version=__version__,
        description="Whether images look AI-generated. Docs: docs/service.md.",
        static_url="/docs/files",
        redoc_url=None,
    )
    service = _Service(judge, limits)
    application.state.admission = service.admission
    _add_error_answers(application)
    application.add_middleware(RequestWatch, counters=service.counters, admission=service.admission)
    if origins:
        application.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )
    _add_addresses(application, service, keys)
    return application


def _add_addresses(application: FastAPI, service: _Service, keys: Keys | None) -> None:
    guard: dict[str, Any] = {"responses": {}}
    if keys:
        unknown = _refusal("No key, or a wrong one.", headers=_KEY_HEADER)
        guard = {"dependencies": [Depends(_key_check(keys))], "responses": {401: unknown}}
    application.post(
        "/v1/images",
        summary="Judge one or many images",
        response_model=documents.ImagesDocument,
        openapi_extra=_REQUEST,
        **guard | {"responses": guard["responses"] | _REFUSALS},
    )(service.judge_images)
    application.get(
        "/v1/models",
        summary="The models that answer",
        response_model=documents.ModelsDocument,
        **guard,
    )(service.list_models)
    application.get(
        "/metrics", summary="For Prometheus", response_class=PlainTextResponse, **guard
    )(service.show_metrics)
    for ask in (application.get, application.head):
        ask(
            "/healthz",
            summary="Whether the process answers",
            response_model=documents.StatusDocument,
        )(service.is_alive)
        ask(
            "/readyz",
            summary="Whether images can be judged",
            response_model=documents.StatusDocument,
            responses=_UNREADY,
        )(service.is_ready)
    application.get("/", include_in_schema=False)(_lead_to_docs)


async def _lead_to_docs() -> Response:
    return RedirectResponse("docs")


class _Service:
    """What stands behind the addresses."""

    def __init__(self, judge: ServiceJudge, limits: Limits) -> None:
        self._judge, self._limits = judge, limits
        self.admission = Admission(limits)
        self.counters = Counters(self.admission)

    async def judge_images(self, request: Request) -> Response:
        """Judge the files of the field `files`, or the one image that is the whole body."""
        self._check_ready()
        size = declared_size(request, self._limits)
        async with self.admission.request(size=size):
            uploads = await read_uploads(request, self._limits)
            answers = await self._judge_all(uploads)
        self.counters.count_images(answers)
        document = documents.images_document(
            answers, metadata=self._judge.metadata, models=self._judge.models
        )
        return JSONResponse(document, status_code=documents.images_status(answers))

    async def list_models(self) -> Response:
        """The models that answer, with their SHA-256 and thresholds."""
        return JSONResponse({"models": self._judge.models})

    async def is_alive(self) -> Response:
        """Status 200 as long as the process answers."""
        return JSONResponse({"status": "ok"})

    async def is_ready(self) -> Response:
        """Status 200 once the model is open, 503 before."""
        self._check_ready()
        return JSONResponse({"status": "ready"})

    async def show_metrics(self) -> Response:
        """Counters in Prometheus' text format."""
        return Response(self.counters.text(), media_type=CONTENT_TYPE)

    async def _judge_all(self, uploads: list[Upload]) -> list[Answer]:
        turns = asyncio.Semaphore(_IMAGES_AT_A_TIME)

        async def judge(upload: Upload) -> Answer:
            async with turns:
                return await self._judge.judge(upload.name, upload.data)

        return await asyncio.gather(*(judge(upload) for upload in uploads))

    def _check_ready(self) -> None:
        if self.admission.is_stopping:
            raise stopping()
        reason = self._judge.unready_because()
        if reason:
            raise RequestError(503, "not_ready", reason, **_RETRY_WHEN_UNREADY)


def _key_check(keys: Keys) -> Callable[..., Awaitable[None]]:
    async def check_key(
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        key: Annotated[str | None, Security(_KEY)],
    ) -> None:
        if not keys.allows(bearer.credentials if bearer else key or ""):
            message = "Expected a valid key in the header: Authorization: Bearer KEY."
            raise RequestError(401, "unauthorized", message, **{"WWW-Authenticate": "Bearer"})

    return check_key


def _add_error_answers(application: FastAPI) -> None:
    """Every refusal is JSON of the same form."""

    @application.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> Response:
        document = documents.error_document(error.code, str(error))
        return JSONResponse(document, status_code=error.status, headers=error.headers)

    @application.exception_handler(ModelUnavailableError)
    async def unavailable(request: Request, error: ModelUnavailableError) -> Response:
        document = documents.error_document("not_ready", f"The model could not answer: {error}")
        return JSONResponse(document, status_code=503, headers=_RETRY_WHEN_UNREADY)

    @application.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        code = str(error.detail).lower().replace(" ", "_")
        document = documents.error_document(code, str(error.detail))
        headers = dict(error.headers or {})
        if "Allow" in headers:
            # Starlette names the methods of one route only.
            path = request.url.path
            routes = [route for route in application.routes if getattr(route, "path", "") == path]
            headers["Allow"] = ", ".join(sorted({m for route in routes for m in route.methods}))
        return JSONResponse(document, status_code=error.status_code, headers=headers)

    @application.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        # Starlette raises the error again, so that its traceback reaches the log.
        document = documents.error_document(
            "internal_error", "The service has a fault; see its log."
        )
        return JSONResponse(document, status_code=500)
