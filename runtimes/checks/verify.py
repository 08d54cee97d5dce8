"""The checks of `slmx verify` that need no optional packages: hashes, the set of files, and that every graph opens.

The result is written beside the manifest, as `verification.json`, or beside `x.slmx`, as `x.slmx.verification.json`.
The bundle itself never changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from runtimes.bundle.manifest import VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.storage.disk import write_file


@dataclass(frozen=True)
class StructureCheck:
    """The result of the checks that read no text.

    Attributes:
        manifest_sha256: SHA-256 of the manifest, which identifies the bundle.
        files: Number of the files that the manifest lists.
        opened: Variants that onnxruntime opened and whose graphs have the shape of the manifest.
        not_opened: Variants for PyTorch, which were not opened.
        problems: One line for each problem; empty for a bundle without problems.
        versions: Versions of the packages that were used.
    """

    manifest_sha256: str
    files: int
    opened: list[str]
    not_opened: list[str]
    problems: list[str]
    versions: dict[str, str]


def check_structure(bundle: Bundle, log: Log) -> StructureCheck:
    """Hashes every file, looks for files that are not listed, and opens every variant that onnxruntime runs.

    Args:
        bundle: The bundle.
        log: Called with a line of progress before each stage.
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


def write_verification(bundle: Bundle, check: StructureCheck, further: Mapping[str, Any], log: Log) -> None:
    """Writes the result in the folder of a bundle or beside its archive. If that is not possible, it logs a line.

    Args:
        bundle: The bundle that was checked.
        check: The result of `check_structure`.
        further: What options of `slmx verify` found: "signature", "quality" and "runtimes".
        log: Called with the line.
    """
    found = asdict(check) | dict(further)
    path = bundle.beside(VERIFICATION_FILE)
    try:
        write_file(path, (json.dumps(found, indent=1) + "\n").encode())
    except OSError as error:
        log(f"{path}: not written ({error.strerror}); the result stands above")
