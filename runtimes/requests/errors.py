"""The error for a request that cannot be served as it is."""

from __future__ import annotations

from slm.console.errors import UsageError


class RequestError(UsageError):
    """A field of a request is wrong.

    Args:
        message: What is wrong, and what to do next.
        param: The name of the field; None if it is about the whole request.
        code: A short name of the problem, as in OpenAI's interface.
        status: The HTTP status of the answer.
    """

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value", status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.code = code
        self.status = status
