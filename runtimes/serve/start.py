"""What `slmx serve` needs before it can answer: a socket, descriptors, and the models."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from runtimes.pack.open_signed import open_signed
from runtimes.serve.middleware.access import is_loopback
from runtimes.serve.scheduler.scheduler import Scheduler
from slm.console.errors import SlmxError, UsageError
from slm.storage.json_reader import as_plain_name

BACKLOG = 2048
# The kernel keeps up to twice as much of an answer that a client does not read.
SEND_BUFFER = 2**17
OTHER_DESCRIPTORS = 128  # files of the process other than connections


@dataclass(frozen=True)
class Listener:
    """A socket that listens.

    Attributes:
        socket: The socket.
        address: Its IP address.
        port: Its port.
    """

    socket: socket.socket
    address: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.address)

    @property
    def url(self) -> str:
        """Where a client on this machine finds the server."""
        address = ipaddress.ip_address(self.address.partition("%")[0])
        if address.is_unspecified:
            address = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"http://{host}:{self.port}"


def listen(host: str, port: int) -> Listener:
    """Takes a port.

    Args:
        host: An address of this machine, or a name of it.
        port: The port; 0 takes any free one.

    Raises:
        SlmxError: The port is taken or may not be used, or the host is no address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise SlmxError(f"--host {host[:80]!a}: no such address; give one of this machine, such as 0.0.0.0") from None
    dual = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SlmxError(f"port {port}: another program uses it; choose another --port") from None
        problem = str(error.strerror).partition(" (while ")[0]  # Python adds the address
        raise SlmxError(f"--host {host} --port {port}: {problem}; choose others") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    found = listener.getsockname()
    return Listener(listener, found[0], found[1])


def raise_descriptor_limit(connections: int) -> None:
    """Lets this process open as many files as its connections need.

    Args:
        connections: The most connections that are answered. Twice as many can be open while some are refused.

    Raises:
        SlmxError: The system does not allow so many.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = 2 * connections + OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        most = (hard - OTHER_DESCRIPTORS) // 2
        raise SlmxError(
            f"{connections} connections need {needed} open files, the system allows {hard}: --connections {most}, "
            "or raise the limit (ulimit -n)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def open_models(
    paths: Sequence[Path], key: Path | None, variant: str | None, threads: int | None, slots: int, queue: int
) -> dict[str, Scheduler]:
    """Opens bundles and starts their models.

    Args:
        paths: Folders or archives of bundles. The name of each is the name of its model.
        key: The file of the public key with which every bundle must be signed; None requires no signature.
        variant: The variant of every model; None is the default of each bundle.
        threads: Threads of each model; None is by its size.
        slots: The most stories of a model at the same time.
        queue: The most stories of a model that wait.

    Returns:
        The schedulers by the names of their models, in the order of the paths.

    Raises:
        SlmxError: As in `open_signed`, `Generator` and `Scheduler`.
        UsageError: Two models have the same name.
    """
    bundles: dict[str, Bundle] = {}
    for path in paths:
        bundle = open_signed(path, key)
        name = model_name(path, bundle)
        if name in bundles:
            raise UsageError(
                f"{bundles[name].path} and {path} both give the model name {name}: copy one of them to another name"
            )
        bundles[name] = bundle
    return {
        name: Scheduler(Generator(bundle, variant, threads, slots=slots), slots, queue)
        for name, bundle in bundles.items()
    }


def model_name(path: Path, bundle: Bundle) -> str:
    """Returns the name of the model of a bundle: that of its folder or archive, in Latin letters."""
    place = path.resolve()
    name = place.name if place.is_dir() else place.stem
    return as_plain_name(name, bundle.manifest.preset)
