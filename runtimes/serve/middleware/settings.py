"""What protects the server."""

from __future__ import annotations

from dataclasses import dataclass, field

from runtimes.serve.middleware.access import Hosts, Keys
from runtimes.serve.protocol.limits import Limits


@dataclass(frozen=True)
class ServeSettings:
    """What protects the server.

    Attributes:
        hosts: The names under which clients may ask.
        keys: The keys; none are needed if there are none.
        origins: The origins of pages that may ask from a browser, in addition to the server's own.
        limits: What one client may take.
    """

    hosts: Hosts
    keys: Keys = field(default_factory=Keys)
    origins: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
