"""What the handlers of the server share."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from runtimes.requests.errors import RequestError
from runtimes.requests.fields import Bounds
from runtimes.serve.scheduler.scheduler import Scheduler
from slm.console.plain_text import as_plain_text


@dataclass
class ServerState:
    """What the handlers of the server share. It is `app.state.server`.

    Attributes:
        models: The scheduler of each model, by the name of the model. The first is the default.
        bounds: What one request may ask for.
        request_seconds: The most seconds of one request.
        created: When the server began, in seconds of Unix time.
        stopping: Whether the server takes no new stories because it ends.
    """

    models: dict[str, Scheduler]
    bounds: Bounds
    request_seconds: float
    created: int
    stopping: bool = False

    def find(self, name: str | None) -> tuple[str, Scheduler]:
        """Returns the name and the scheduler of a model.

        Args:
            name: The name of a model; None is the first.

        Raises:
            RequestError: There is no such model. The status is 404.
        """
        if name is None:
            return next(iter(self.models.items()))
        if name not in self.models:
            raise RequestError(
                f"the model {as_plain_text(name)!a} does not exist; GET /v1/models lists {', '.join(self.models)}",
                "model",
                "model_not_found",
                404,
            )
        return name, self.models[name]


def state_of(request: Request) -> ServerState:
    """Returns the shared state of the application that a request belongs to."""
    state: ServerState = request.app.state.server
    return state


def client_of(request: Request) -> str:
    """Returns who asks, for the fair share of the slots."""
    client: str = getattr(request.state, "client", "")
    return client
