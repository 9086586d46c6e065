"""Build the service's web application: images in requests, verdicts in answers.

It is an ASGI application: uvicorn runs it, tests call it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from real_vs_ai import __version__
from real_vs_ai.service import documents
from real_vs_ai.service.judging import Answer, Judge
from real_vs_ai.service.keys import Keys
from real_vs_ai.service.limits import Admission, Limits, RequestError, stopping
from real_vs_ai.service.metrics import CONTENT_TYPE, Metrics
from real_vs_ai.service.request_watch import RequestWatch
from real_vs_ai.service.uploads import FIELD, Upload, declared_size, read_uploads
from real_vs_ai.serving.judging_queue import ModelUnavailableError

# Of one request: more would only stand in the way of the others.
_IMAGES_AT_A_TIME = 32
_RETRY_WHEN_UNREADY = {"Retry-After": "5"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_REFUSALS = {
    400: "No images, or a damaged form.",
    401: "No key, or a wrong one.",
    408: "The request came too slowly.",
    413: "Too many images, or too large ones.",
    415: "Not images.",
    422: "No file could be read: the entries say why.",
    429: "Too busy: Retry-After says when to come back.",
    503: "The model is not ready, or the service is stopping.",
}


def create_application(judge: Judge, *, limits: Limits, keys: Keys | None) -> FastAPI:
    """The service with this judge; with keys, only /healthz and /readyz are open to all."""
    application = FastAPI(
        title="Real or AI?",
        version=__version__,
        description="Whether images look AI-generated. Docs: docs/service.md.",
    )
    service = _Service(judge, limits)
    application.state.admission = service.admission
    _add_error_answers(application)
    application.add_middleware(RequestWatch, metrics=service.metrics, admission=service.admission)
    guarded = [Depends(_key_check(keys))]
    application.post(
        "/v1/images",
        summary="Judge one or many images",
        response_model=documents.ImagesDocument,
        responses={status: _described(status, text) for status, text in _REFUSALS.items()},
        openapi_extra=_BODY,
        dependencies=guarded,
    )(service.judge_images)
    application.get(
        "/v1/models",
        summary="The models that answer",
        response_model=documents.ModelsDocument,
        dependencies=guarded,
    )(service.list_models)
    application.get("/metrics", summary="For Prometheus", dependencies=guarded)(
        service.show_metrics
    )
    application.get("/healthz", summary="Whether the process answers")(service.is_alive)
    application.get("/readyz", summary="Whether images can be judged")(service.is_ready)
    return application


class _Service:
    """What stands behind the addresses."""

    def __init__(self, judge: Judge, limits: Limits) -> None:
        self._judge, self._limits = judge, limits
        self.admission = Admission(limits)
        self.metrics = Metrics(self.admission)

    async def judge_images(self, request: Request) -> Response:
        """Judge the files of the field `files`, or the one image that is the whole body."""
        self._check_ready()
        size = declared_size(request, self._limits)
        async with self.admission.request(size=size):
            uploads = await read_uploads(request, self._limits)
            answers = await self._judge_all(uploads)
        self.metrics.count_images(answers)
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
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

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


def _key_check(keys: Keys | None) -> Callable[[Request], Awaitable[None]]:
    async def check_key(request: Request) -> None:
        if keys is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not keys.allows(key):
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
        return JSONResponse(document, status_code=error.status_code, headers=error.headers)


def _described(status: int, text: str) -> dict[str, Any]:
    model = documents.ImagesDocument if status == 422 else documents.ErrorDocument
    return {"description": text, "model": model}
