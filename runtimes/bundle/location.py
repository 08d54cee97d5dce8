"""Where bundles are: those that ship with slmx, and those that `slmx export` writes."""

from __future__ import annotations

import sys
from pathlib import Path

from runtimes.bundle.manifest import MANIFEST_FILE

# Folder for exports, relative to the current folder; each export is stored under the name of its preset.
BUNDLES = Path("bundles")
# The bundles inside the package, each in a folder of its name.
SHIPPED_BUNDLES = Path(__file__).parents[1] / "bundles"
DEFAULT_BUNDLE = "nano"
BUNDLE_HELP = (
    "Bundle: a folder, an archive, or the name of a shipped one (nano, micro). "
    "Default: bundles/nano in the current folder if it exists, else the shipped nano."
)


def bundle_path(bundle: str | Path) -> Path:
    """Where a bundle is that is given by its path or by the name of a shipped one.

    Args:
        bundle: A folder, an archive or a name, such as "nano". A path that exists is taken before a name.
    """
    path, shipped = Path(bundle), SHIPPED_BUNDLES / bundle
    is_name = str(bundle) == path.name and (shipped / MANIFEST_FILE).is_file()
    return shipped if is_name and not path.exists() else path


def find_bundle(bundle: Path | None) -> Path:
    """Where the bundle is that a command opens.

    By default this is `bundles/nano` in the current folder if an export wrote it, which is reported on stderr,
    else the one inside the package.
    """
    if bundle is not None:
        return bundle_path(bundle)
    exported = BUNDLES / DEFAULT_BUNDLE
    if (exported / MANIFEST_FILE).is_file():
        print(f"bundle: {exported} (--bundle {DEFAULT_BUNDLE} uses the shipped one)", file=sys.stderr)
        return exported
    return SHIPPED_BUNDLES / DEFAULT_BUNDLE
