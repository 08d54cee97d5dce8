"""Who may ask: keys, the names of the server, and the pages of other origins."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from slm.console.errors import UsageError

# What an Authorization header can hold (RFC 6750, section 2.1).
KEY = re.compile(r"[A-Za-z0-9._~+/=-]{8,512}")
BEARER = b"bearer"
NAME = re.compile(r"[A-Za-z0-9._-]+")
# Host: a name or an address, perhaps with a port (RFC 9110, section 7.2).
HOST = re.compile(rf"(?P<name>\[[0-9A-Fa-f:.]+\]|{NAME.pattern})(?::[0-9]{{0,5}})?")
LOOPBACK_NAME = "localhost"


class Keys:
    """The keys of the server. Only their SHA-256 is kept.

    Args:
        keys: The keys; none of them is needed if there are none.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key.encode("ascii")) for key in keys]

    def __bool__(self) -> bool:
        """Returns whether a key is needed."""
        return bool(self._digests)

    def check(self, authorization: bytes) -> bytes | None:
        """Compares a header Authorization with every key, in constant time.

        Returns:
            The SHA-256 of the key; None if it is none of the keys.
        """
        scheme, _, given = authorization.strip().partition(b" ")
        digest = _digest(given.strip())
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest if scheme.lower() == BEARER and any(matches) else None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_keys(variable: str, value: str | None) -> Keys:
    """Reads the keys of an environment variable.

    Args:
        variable: Its name.
        value: One key, or several with commas between them; None if the variable is not set.

    Raises:
        UsageError: A key is too short, or has characters that no header can hold.
    """
    if value is None:
        return Keys()
    keys = [part.strip() for part in value.split(",")]
    if not all(map(KEY.fullmatch, keys)):
        raise UsageError(
            f"the key in {variable} must have 8 to 512 letters, digits or . _ ~ + / = - (several: with commas between "
            f"them); this makes one: export {variable}=$(openssl rand -hex 24)"
        )
    return Keys(keys)


@dataclass(frozen=True)
class Hosts:
    """The names under which clients may ask.

    A page of another site can make a browser ask this server by giving its own name this server's address (DNS
    rebinding). The header Host then holds that name. It never holds an address that the attacker does not own.

    Attributes:
        names: Names and addresses in lower case.
        any_address: Whether every IP address is allowed too.
    """

    names: frozenset[str]
    any_address: bool = False

    def allow(self, host: str) -> bool:
        """Returns whether a header Host names this server."""
        match = HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].strip("[]").lower().rstrip(".")
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or address.is_loopback


def is_loopback(address: str) -> bool:
    """Returns whether only this machine can connect to an address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def hosts_for(bound: str, address: str, machine: str, allowed: Sequence[str]) -> Hosts:
    """Returns the names of a server.

    Args:
        bound: The host as the user gave it.
        address: The address that it means.
        machine: The name of this machine.
        allowed: More names.

    Raises:
        UsageError: One of the names is no name of a host.
    """
    for name in allowed:
        if NAME.fullmatch(name) is None:
            raise UsageError(f"--allow-host {name[:80]!a}: give a name without port and path, such as stories.example")
    names = {LOOPBACK_NAME, bound, address, *(name.rstrip(".") for name in allowed)}
    is_local = is_loopback(address)
    if not is_local:
        names |= {machine, f"{machine}.local"}
    return Hosts(frozenset(name.lower() for name in names), any_address=not is_local)


def read_origins(origins: Sequence[str]) -> tuple[str, ...]:
    """Checks the origins of pages that may ask.

    Raises:
        UsageError: One is not exactly an origin, such as https://stories.example.
    """
    for origin in origins:
        parts = urlsplit(origin)
        exact = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme not in ("http", "https") or not HOST.fullmatch(parts.netloc) or origin != exact.lower():
            raise UsageError(
                f"--cors {origin[:80]!a}: give one exact origin in lower case, such as https://stories.example or "
                "http://localhost:3000; * is not possible"
            )
    return tuple(origins)
