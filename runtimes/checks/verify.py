"""What `slmx verify` checks with the plain install: hashes, the set of files, and that every graph opens.

The result is written beside the manifest, as `verification.json`. The manifest itself never changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from runtimes.bundle.manifest import VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.disk import write_file
from slm.errors import SlmxError

Log = Callable[[str], None]


@dataclass(frozen=True)
class StructureCheck:
    """What was found without judging any text.

    Attributes:
        manifest_sha256: SHA-256 of the manifest, by which the result belongs to a bundle.
        files: Number of the files that the manifest lists.
        opened: Variants that onnxruntime opened and whose graphs have the shape of the manifest.
        not_opened: Variants for PyTorch, which were not opened.
        problems: Everything that is wrong, one line each; empty for a whole bundle.
        versions: Versions of the packages that checked it.
    """

    manifest_sha256: str
    files: int
    opened: list[str]
    not_opened: list[str]
    problems: list[str]
    versions: dict[str, str]


def check_structure(bundle: Bundle, log: Log) -> StructureCheck:
    """Hash every file, look for files that are not listed, and open every variant that onnxruntime runs.

    Args:
        bundle: The bundle.
        log: Gets a line of progress before each stage.
    """
    from runtimes.engine.session import Session

    log(f"files: hashing {len(bundle.manifest.files)}")
    problems = bundle.problems()
    opened = []
    for name in bundle.variants if not problems else ():
        log(f"{name}: opening")
        try:
            Session.open(bundle.model_bytes(name), bundle.config, threads=1, name=bundle.model_location(name))
            opened.append(name)
        except SlmxError as error:
            problems.append(str(error))
    return StructureCheck(
        manifest_sha256=bundle.manifest_sha256,
        files=len(bundle.manifest.files),
        opened=opened,
        not_opened=[name for name in bundle.manifest.variants if VARIANTS[name].is_torch],
        problems=problems,
        versions={name: version(name) for name in ("slmx", "onnxruntime")},
    )


def write_verification(bundle: Bundle, check: StructureCheck, quality: dict[str, Any] | None, log: Log) -> None:
    """Write what was found beside the manifest; a place that cannot be written to gets a line in the log.

    Args:
        bundle: The bundle that was checked.
        check: The result of `check_structure`.
        quality: What `slmx verify --quality` measured, if it did.
        log: Gets the line.
    """
    found = asdict(check) | ({} if quality is None else {"quality": quality})
    path = bundle.path / VERIFICATION_FILE
    if not bundle.path.is_dir():
        log(f"{bundle.path}: an archive, which stays as it is; {VERIFICATION_FILE} was not written")
        return
    try:
        write_file(path, (json.dumps(found, indent=1) + "\n").encode())
    except OSError as error:
        log(f"{path}: not written ({error.strerror}); the result stands above")
