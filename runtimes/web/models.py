"""Which models a site holds: their names, and for each the variant that a browser runs best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtimes.bundle.store import Bundle
from runtimes.web.variants import WEB_VARIANTS
from slm.console.errors import SlmxError, UsageError, unknown
from slm.storage.file_names import JSON_FILE
from slm.storage.json_reader import as_plain_name

# A tab has at most 4 GB of WebAssembly memory, and onnxruntime needs about twice the model while it loads it.
MAX_MODEL_BYTES = 10**9


@dataclass(frozen=True)
class SiteModel:
    """A model of a site.

    Attributes:
        name: Its name in the menu and in paths: letters, digits, `_`, `-` and dots inside.
        bundle: Where its files come from.
        variant: The variant that the browser runs.
    """

    name: str
    bundle: Bundle
    variant: str

    @property
    def file(self) -> str:
        """The model file, relative to the bundle."""
        return self.bundle.manifest.variants[self.variant].file

    @property
    def bytes(self) -> int:
        """Size of the model file."""
        return self.bundle.manifest.files[self.file].bytes


def choose_models(paths: Sequence[Path], variant: str | None = None) -> tuple[SiteModel, ...]:
    """Opens the bundles of a site and chooses the variant of each.

    A model has the name that its bundle states. If two bundles state the same name, the second one gets `-2`.

    Args:
        paths: Folders or archives of bundles, in the order of the menu.
        variant: The variant of every model; None takes the default of a bundle that was exported for the web, and else
            the first of `WEB_VARIANTS` that the bundle holds.

    Raises:
        SlmxError: A path is no bundle, or its model does not run in a browser.
        UsageError: A bundle is given twice, or the variant is none for a browser.
    """
    if variant is not None and variant not in WEB_VARIANTS:
        raise UsageError(unknown("variant for browsers", variant, WEB_VARIANTS))
    models: list[SiteModel] = []
    for path in paths:
        bundle = Bundle.open(path)
        if any(model.bundle.manifest_sha256 == bundle.manifest_sha256 for model in models):
            raise UsageError(f"{path}: the same bundle is given twice: drop one")
        name = _free_name(
            as_plain_name(bundle.manifest.title, bundle.manifest.preset), {model.name.casefold() for model in models}
        )
        models.append(SiteModel(name, bundle, _choose_variant(bundle, variant)))
    for model in models:
        _check_size(model)
    return tuple(models)


def _free_name(wanted: str, taken: set[str]) -> str:
    """Returns a name that no other model has. File systems may take `Nano` and `nano` for one."""
    name, number = wanted, 1
    while name.casefold() in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


def _choose_variant(bundle: Bundle, wanted: str | None) -> str:
    held = [name for name in WEB_VARIANTS if name in bundle.manifest.variants]
    if wanted in held:
        return str(wanted)
    if wanted is not None:
        has = f"for browsers it holds {', '.join(held)}" if held else "it holds none for browsers"
        makes = f"slmx export {bundle.exported_from} --{wanted} --out NEW makes one"
        raise SlmxError(f"{bundle.path}: no variant {wanted}: {has}; {makes}")
    if not held:
        raise SlmxError(
            f"{bundle.path}: no variant in it runs in a browser ({', '.join(bundle.manifest.variants)}); "
            f"slmx export {bundle.exported_from} --int8 --out NEW makes one that does"
        )
    if JSON_FILE not in bundle.manifest.files:
        raise SlmxError(f"{bundle.path}: no {JSON_FILE} in it, which the page needs; export it again")
    default = bundle.manifest.default
    return default if bundle.manifest.target == "web" and default in held else held[0]


def _check_size(model: SiteModel) -> None:
    if model.bytes > MAX_MODEL_BYTES:
        smaller = [
            name
            for name in WEB_VARIANTS
            if name in model.bundle.manifest.variants
            and model.bundle.manifest.files[model.bundle.manifest.variants[name].file].bytes <= MAX_MODEL_BYTES
        ]
        advice = f"choose --variant {smaller[0]}" if smaller else "export a smaller variant, such as --int8"
        raise SlmxError(
            f"{model.bundle.path}: {model.variant} has {model.bytes / 1e9:.1f} GB, and a browser tab holds a model of "
            f"{MAX_MODEL_BYTES / 1e9:.0f} GB at most; {advice}"
        )
