"""Errors of the server in the shape and with the codes of OpenAI's interface."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from runtimes.requests.errors import RequestError
from runtimes.serve.scheduler.errors import QueueFullError, StoppingError
from slm.console.errors import SlmxError, UsageError

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
CLIENT_GONE = 499  # nginx's status for a client that did not wait; nobody reads the answer


class ClientGoneError(SlmxError):
    """The client closed its connection."""


class OutOfTimeError(SlmxError):
    """The request took longer than the server allows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request took more than {seconds:g} s: ask for fewer tokens or stories")


class ModelError(SlmxError):
    """An error of the model ended a story."""


def error_body(message: str, type: str, param: str | None, code: str | None) -> dict[str, object]:
    """Returns the JSON object of an error."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def error_response(
    status: int,
    message: str,
    type: str = INVALID_REQUEST,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Returns an answer with an error.

    Args:
        status: The HTTP status.
        message: What is wrong, and what to do next.
        type: The class of the error: `INVALID_REQUEST`, `SERVER_ERROR` or "rate_limit_error".
        param: The field that is wrong.
        code: A short name of the problem.
        headers: Headers of the answer, in addition to those of its content.
    """
    return JSONResponse(error_body(message, type, param, code), status, headers)


def response_to(error: Exception) -> Response:
    """Returns the answer to an error of a request. Any other exception is raised again."""
    if isinstance(error, ClientGoneError | ClientDisconnect):
        return Response(status_code=CLIENT_GONE)
    if isinstance(error, RequestError):
        return error_response(error.status, str(error), param=error.param, code=error.code)
    if isinstance(error, UsageError):
        return error_response(400, str(error), code="invalid_value")
    status, type_, code, headers = describe(error)
    return error_response(status, str(error), type_, None, code, headers)


def describe(error: Exception) -> tuple[int, str, str, dict[str, str]]:
    """Returns the status, the type, the code and the headers of an error that is not the client's.

    Raises:
        Exception: The error itself, if it is not one that is foreseen.
    """
    if isinstance(error, QueueFullError):
        return 429, "rate_limit_error", "queue_full", {"Retry-After": str(math.ceil(error.retry_after))}
    if isinstance(error, StoppingError):
        return 503, SERVER_ERROR, "stopping", {"Retry-After": "5"}
    if isinstance(error, OutOfTimeError):
        return 408, INVALID_REQUEST, "request_timeout", {"x-should-retry": "false"}
    if isinstance(error, ModelError):
        return 500, SERVER_ERROR, "model_error", {}
    raise error
