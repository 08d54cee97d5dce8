"""What `slmx doctor --pin` chose for a bundle on this machine: the variant and the threads that run without a flag."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.bundle.user_folder import user_folder
from slm.console.errors import SlmxError
from slm.console.plain_text import escaped
from slm.storage.json_reader import Fields, read_json
from slm.storage.read_errors import unreadable

if TYPE_CHECKING:
    from runtimes.bundle.store import Bundle

FORMAT_VERSION = 1
SETTINGS_HOME = "APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME"
MAX_BYTES = 2**20
MAX_THREADS = 256  # of onnxruntime, also without a choice
# Without a handler, Python prints a warning as one line on stderr.
LOG = logging.getLogger(__name__)


class DamagedPinsError(SlmxError):
    """The file of choices was read, and is not one that slmx wrote."""


@dataclass(frozen=True)
class Pin:
    """A choice.

    Attributes:
        variant: The variant.
        threads: Threads of onnxruntime.
        cpu: The processor that it was measured on. Another processor does not use it.
    """

    variant: str
    threads: int
    cpu: str


def pins_path() -> Path:
    """Returns the file of all choices, which may be missing; SlmxError if this user has no home folder.

    It is in the user's folder for settings: $XDG_CONFIG_HOME, by default ~/.config; on Windows %APPDATA%.
    """
    default = "~/AppData/Roaming" if os.name == "nt" else "~/.config"
    return user_folder(SETTINGS_HOME, default, "the choices of slmx doctor --pin") / "variants.json"


def find_pin(bundle: Bundle, cpu: str) -> Pin | None:
    """Returns the choice for a bundle on a processor; None if there is none, or if the file of choices cannot be read.

    A file or a choice that is damaged, of a newer slmx or forbidden is a warning in the log.
    """
    try:
        path = pins_path()
        os.stat(path)
    except (OSError, SlmxError):
        return None
    try:
        pins = read_pins(path)
        pin = pins.get(bundle.manifest_sha256)
        if pin is None and bundle.manifest_sha256 in pins:
            raise SlmxError(f"{path}: the choice for this bundle is damaged; slmx doctor --pin or --unpin mends it")
    except SlmxError as error:
        LOG.warning("%s; going on without a choice", escaped(str(error)))
        return None
    return pin if pin is not None and pin.cpu == cpu and pin.variant in bundle.variants else None


def read_pins(path: Path) -> dict[str, Pin | None]:
    """Returns the choices of a file by the hash of the manifest, None for a damaged one; nothing if it is missing.

    Raises:
        DamagedPinsError: It is damaged as a whole.
        SlmxError: It cannot be read, is no file, or was written by a newer slmx.
    """
    try:
        if path.is_dir():
            raise SlmxError(f"{path}: a folder, and slmx keeps the choices in a file there; remove that folder")
        if path.exists() and not path.is_file():
            raise SlmxError(f"{path}: not a regular file, and slmx keeps the choices there; remove it")
        fields = Fields(read_json(path, MAX_BYTES))
        version = fields.integer("format_version", 1)
        if version > FORMAT_VERSION:
            raise SlmxError(f"{path}: written by a newer slmx (format {version}); update slmx, or remove that file")
        bundles = fields.object("bundles")
        return {digest: _pin(bundles, digest) for digest in bundles}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise DamagedPinsError(
            f"{path}: damaged ({error}); slmx doctor --pin or --unpin writes it anew, without its other choices"
        ) from None


def _pin(bundles: Fields, digest: str) -> Pin | None:
    try:
        fields = bundles.object(digest)
        return Pin(fields.name("variant"), fields.integer("threads", 1, MAX_THREADS), fields.text("cpu"))
    except ValueError:
        return None
