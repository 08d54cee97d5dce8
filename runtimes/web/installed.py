"""Where the built pages are: in a clone in `runtimes/web/app`, elsewhere in the package slmx-web."""

from __future__ import annotations

from pathlib import Path

from runtimes.bundle.location import package_folder
from slm.console.errors import SlmxError

PACKAGE = "slmx_web"
BUILT = Path(__file__).parent / "app" / PACKAGE
MARK = "index.html"  # a file that every version of the pages has
INSTALL = "in a clone of slmx, run pip install ./runtimes/web/app"
NOT_INSTALLED = f"the files of the web page are not installed: {INSTALL}"


def find_page_folder() -> Path | None:
    """Returns the folder with the built files; None if they are not installed."""
    return package_folder(PACKAGE, BUILT, MARK)


def page_is_damaged(folder: Path) -> SlmxError:
    """Returns the error that says that files of a folder are missing or damaged."""
    return SlmxError(f"{folder}: the files of the web page are not whole; install them again: {INSTALL}")
