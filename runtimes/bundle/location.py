"""Where bundles are: those that ship with slmx, those that `slmx export` writes, and those that `slmx pull` brings.

Every command that takes a bundle finds it with `find_bundle` or `bundle_path`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from runtimes.bundle.user_folder import user_folder
from slm.console.errors import SlmxError
from slm.console.notice import log_line
from slm.folder_kind import MODELS, PACKED_SUFFIX, Kind, find_kind, wrong_kind
from slm.hidden_names import taken_before
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.json_reader import is_plain_name

# Folder for exports, relative to the current folder; each export is there under the name of its checkpoint or preset.
BUNDLES = Path("bundles")
# The bundles inside the package, each in a folder of its name.
SHIPPED_BUNDLES = Path(__file__).parents[1] / "bundles"
# The bundle that ships in a package of its own, because the wheel of slmx has no room for it. The package holds it in a
# folder of its name. A clone has the package in STORIES_SMALL.
SMALL = "small"
SMALL_PACKAGE = "slmx_stories_small"
SMALL_DISTRIBUTION = "slmx-stories-small"
STORIES_SMALL = Path(__file__).parents[1] / "stories_small" / SMALL_PACKAGE
INSTALL_SMALL = (
    f"pip install ./runtimes/stories_small brings it from a clone, pip install {SMALL_DISTRIBUTION} from an index"
)
REINSTALL = "install {} again, or restore the file in a clone (git restore runtimes)"
DATA_HOME = "LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME"
DEFAULT_BUNDLE = "nano"
BUNDLE_HELP = "Bundle: a folder, an archive, or a name that slmx list shows."
BUNDLE_DEFAULT = "bundles/nano here if it exists, else the shipped nano"


class UnknownBundleError(SlmxError):
    """A bundle is neither a path nor a name, and no name is like it. The message says how to make or bring one."""


def pulled_bundles() -> Path:
    """Returns the folder where `slmx pull` puts bundles, each in OWNER/NAME. It may be missing.

    It is in the user's folder for data: $XDG_DATA_HOME, by default ~/.local/share; on Windows %LOCALAPPDATA%.

    Raises:
        SlmxError: This user has no home folder.
    """
    default = "~/AppData/Local" if os.name == "nt" else "~/.local/share"
    return user_folder(DATA_HOME, default, "the bundles that slmx pull brings") / "bundles"


def shipped_names() -> dict[str, Path]:
    """Returns the folders of the shipped bundles by name: those inside slmx, then small if it is installed."""
    names = {path.name: path for path in _bundles_in(SHIPPED_BUNDLES)}
    small = _small_folder()
    return names if small is None else {**names, SMALL: small}


def is_shipped(bundle: Path) -> bool:
    """Returns whether a bundle is one of the folders that `shipped_names` returns. Commands do not write there."""
    return bundle.parent == SHIPPED_BUNDLES or (bundle.name == SMALL and bundle == _small_folder())


def how_to_restore(bundle: Path) -> str:
    """Returns what to do about a damaged folder of a bundle that ships; "" if the bundle does not ship."""
    if not is_shipped(bundle):
        return ""
    return REINSTALL.format("slmx" if bundle.parent == SHIPPED_BUNDLES else SMALL_DISTRIBUTION)


def _small_folder() -> Path | None:
    """Returns the folder of small, in the clone or else in the installed package; None if it is in neither."""
    package = package_folder(SMALL_PACKAGE, STORIES_SMALL, f"{SMALL}/{MANIFEST_FILE}")
    return package / SMALL if package and (package / SMALL / MANIFEST_FILE).is_file() else None


def package_folder(name: str, in_clone: Path, mark: str) -> Path | None:
    """Returns the folder of a package: `in_clone` if it holds the file `mark`, else where it is installed, or None."""
    if (in_clone / mark).is_file():
        return in_clone
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def exported_names() -> dict[str, Path]:
    """Returns the bundles in `bundles` of the current folder, by the name of the folder or archive."""
    return {path.name: path for path in _bundles_in(BUNDLES)}


def pulled_names() -> dict[str, Path]:
    """Returns the folders of the pulled bundles, by OWNER/NAME. A user without a home folder has none."""
    try:
        folder = pulled_bundles()
    except SlmxError:
        return {}
    owners = sorted(path for path in _entries(folder) if is_plain_name(path.name))
    return {f"{owner.name}/{path.name}": path for owner in owners for path in _bundles_in(owner)}


def _entries(folder: Path) -> list[Path]:
    """Returns what is in a folder; nothing if it cannot be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _bundles_in(folder: Path) -> Iterator[Path]:
    for path in sorted(_entries(folder)):
        is_archive = path.suffix == PACKED_SUFFIX and path.is_file()
        if not path.name.startswith(".") and (is_archive or (path / MANIFEST_FILE).is_file()):
            yield path


def bundle_path(bundle: str | Path) -> Path:
    """Returns the path of a bundle that is given by its path or by its name. Nothing is downloaded.

    A path that exists is taken before a name. Names are those of shipped bundles ("nano"), then those in `bundles` of
    the current folder, then OWNER/NAME of pulled ones, and NAME alone if only one owner has it.

    Args:
        bundle: A folder, an archive or a name.

    Raises:
        UnknownBundleError: There is no such path and no such name, and no name is like it.
        SlmxError: There is no such path and no such name, or several owners have the name. Or there is such a name and
            also such a path, which is no bundle.
        OSError: A path of this name cannot be read.
    """
    path = Path(bundle)
    if path.exists():
        hidden = hidden_bundle(path)
        if hidden and not (path / MANIFEST_FILE).is_file() and find_kind(path) is not Kind.PACKED:
            raise wrong_kind(path, Kind.BUNDLE, hidden)
        return path
    if (named := _named(path.as_posix())) is not None:
        return named
    raise _not_found(path, path.as_posix())


def hidden_bundle(path: Path) -> Path | None:
    """Returns the bundle that a name stands for and that a path of this name hides; None if there is none."""
    if path.is_absolute() or not path.exists():
        return None
    try:
        named = _named(path.as_posix())
    except SlmxError:  # several owners have the name
        return None
    return None if named is None or path.samefile(named) else named


def _named(name: str) -> Path | None:
    """Returns the bundle of a name; None if there is none, and SlmxError if several owners have the name."""
    for names in (shipped_names, exported_names, pulled_names):
        if name in (found := names()):
            return found[name]
    owned = {full: place for full, place in pulled_names().items() if full.partition("/")[2] == name}
    if len(owned) > 1:
        raise SlmxError(f"{name}: there are {' and '.join(owned)}; name one of them")
    return next(iter(owned.values()), None)


def _not_found(path: Path, name: str) -> SlmxError:
    """Makes the error for a bundle that is neither a path nor a name. It says which names are nearest."""
    from difflib import get_close_matches

    exported, pulled = exported_names(), pulled_names()
    short = {full.partition("/")[2] for full in pulled}
    known = {*shipped_names(), *exported, *(f"{BUNDLES}/{one}" for one in exported), *pulled, *short}
    same = [one for one in sorted(known) if _folded(one) == _folded(name)][:2]
    if not same and _folded(name) == SMALL:
        return UnknownBundleError(f"{name}: no such path, and no bundle of this name; {INSTALL_SMALL}")
    if near := same or get_close_matches(name, sorted(known), n=2):
        return SlmxError(f"{name}: no such path, and no bundle of this name; did you mean {' or '.join(near)}?")
    owner, _, rest = name.partition("/")
    if is_plain_name(owner) and is_plain_name(rest) and owner != str(BUNDLES) and not Path(owner).is_dir():
        return UnknownBundleError(
            f"{name}: no such path, and no bundle of this name; slmx list shows what is here, "
            f"and slmx pull {name} brings it if it is on the hub"
        )
    return UnknownBundleError(str(wrong_kind(path, Kind.BUNDLE)))


def _folded(name: str) -> str:
    """Returns a name without the ending of an archive and without the difference of small and capital letters."""
    return name.casefold().removesuffix(PACKED_SUFFIX)


def find_bundle(bundle: Path | None, say: bool = True) -> Path:
    """Returns the path of the bundle that a command opens; errors are as in `bundle_path`.

    By default this is `bundles/nano` in the current folder if an export wrote it, else the one inside the package.

    Args:
        bundle: A folder, an archive or a name; None is the default.
        say: Whether `bundle_notice` is printed on stderr.
    """
    found = _default_bundle() if bundle is None else bundle_path(bundle)
    if say and (line := bundle_notice(bundle)):
        log_line(line)
    return found


def bundle_notice(bundle: Path | None) -> str:
    """Returns the line about a bundle that is perhaps not the one that was meant; "" if there is no doubt.

    Args:
        bundle: As in `find_bundle`, or a checkpoint or run for `slmx evaluate`. A default that does not ship is named,
            and a path that hides a name.
    """
    if bundle is not None:
        hidden = hidden_bundle(bundle)
        if hidden is None or find_kind(bundle) not in (*MODELS, Kind.PACKED):
            return ""
        return taken_before(bundle, "bundle", hidden)
    default = _default_bundle()
    if default.parent == SHIPPED_BUNDLES:
        return ""
    return f"bundle: {default}, exported here (the name {DEFAULT_BUNDLE} is for the one that ships)"


def _default_bundle() -> Path:
    exported = BUNDLES / DEFAULT_BUNDLE
    return exported if (exported / MANIFEST_FILE).is_file() else SHIPPED_BUNDLES / DEFAULT_BUNDLE
