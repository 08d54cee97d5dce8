"""The manifest of a bundle: what it holds, the hash of every file, and the figures of every variant.

An export writes the manifest, and nothing changes it afterwards. `Manifest.read` is the only reader. It checks every
value, because a bundle may come from an untrusted source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from runtimes.bundle.chat_template import STORY_TEMPLATE, ChatTemplate
from runtimes.bundle.figures import Figures, read_figures, read_increase
from runtimes.bundle.variants import VARIANTS
from slm.console.errors import SlmxError
from slm.presets import GPTConfig
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of_bytes
from slm.storage.json_reader import Fields, is_plain_name, parse_json
from slm.storage.listing import Listing
from slm.tokenizers.settings import DEFAULT_SETTINGS, TokenizerSettings

FORMAT_VERSION = 3
READABLE_VERSIONS = (2, 3)
# The result of `slmx verify` and the signature of `slmx sign`. They are in the folder of the manifest, and they are not
# part of the bundle. Beside an archive, each has the archive's name and the ending in `COMPANIONS`.
VERIFICATION_FILE = "verification.json"
SIGNATURE_FILE = "model.sig"
COMPANIONS = {VERIFICATION_FILE: ".verification.json", SIGNATURE_FILE: ".sig"}
BUNDLE_LISTING = Listing(MANIFEST_FILE, "files", unlisted=tuple(COMPANIONS))

# How `MadeFrom.source` marks the split of each text, and what people read for a validation text.
_SPLIT = re.compile(r" \((train|valid)\)(?=[,;]|$)")
HELD_OUT = " (held out for validation)"

MAX_MANIFEST_BYTES = 2**20
MAX_PATH = 255
MAX_FILE_BYTES = 2**31  # the limit of protobuf, and so of an ONNX file
MAX_CACHE_BYTES = 2**32
MAX_SIZES = {"block_size": 2**17, "vocab_size": 2**20, "n_layer": 512, "n_head": 512, "n_embd": 2**15}
MAX_OPTIONAL_SIZES = {"n_kv_head": 512, "head_size": 2**12, "n_inner": 2**18}


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: what it is, its size in bytes and its SHA-256 in hexadecimal."""

    what: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Exclusion:
    """The matrices that int8 leaves in float, the worst first, and their cost.

    Attributes:
        names: The matrices.
        bpb_increase_without: Rise in bits per byte, relative to the float model, with every matrix in int8.
        bytes_added: How much larger the file became.
        step_time_ratio: Time of a step relative to a graph with every matrix in int8.
    """

    names: tuple[str, ...]
    bpb_increase_without: float
    bytes_added: int
    step_time_ratio: float


@dataclass(frozen=True)
class VariantEntry:
    """A variant of the bundle: its file, its figures, and how it was made.

    Attributes:
        file: The file, relative to the bundle.
        figures: What the export measured.
        recipe: Name of the int8 recipe.
        settings: The settings of the quantizer.
        kept_float: Matrices that the quantizer left in float.
        exclusion: What `--int8-exclude auto` found.
        opset: Version of the ONNX operators, if it differs from that of the other variants.
        of: The variant that this one was converted from.
    """

    file: str
    figures: Figures
    recipe: str | None = None
    settings: Mapping[str, bool | int | str] | None = None
    kept_float: tuple[str, ...] = ()
    exclusion: Exclusion | None = None
    opset: int | None = None
    of: str | None = None


@dataclass(frozen=True)
class MadeFrom:
    """The checkpoint of a bundle.

    Attributes:
        sha256: SHA-256 of its weights.
        untrained: Whether they are random.
        source: The texts that it was trained on, or the model that it was imported from; None if that is not recorded.
        licence: The licence of that text or model; None if it was not stated.
    """

    sha256: str
    untrained: bool
    source: str | None = None
    licence: str | None = None

    @property
    def shown_source(self) -> str | None:
        """The source in words for people, who could take a validation text for one that the model learned from."""
        if self.source is None:
            return None
        return _SPLIT.sub(lambda split: HELD_OUT if split[1] == "valid" else "", self.source)


@dataclass(frozen=True)
class JudgedOn:
    """A description of the text that the variants were compared on, and its number of tokens."""

    text: str
    tokens: int


@dataclass(frozen=True)
class Manifest:
    """A manifest. All values were checked, and no name in it leads out of the bundle.

    Attributes:
        preset: Name of the shape. A folder can have this name.
        target: The kind of machine that the bundle was made for.
        default: The variant that runs unless another one is named.
        shape: The shape of the model.
        checkpoint: The weights that it was made from.
        judged_on: The text that the figures were measured on.
        variants: The variants by name, in the order of tables.
        versions: Packages that made the bundle, and the versions of ONNX that it uses.
        files: Every file of the bundle except the manifest, by name relative to the bundle.
        tokenizer: How the tokenizer splits text, and its special tokens.
        chat: How the messages of a chat become the beginning of a text.
        inputs: SHA-256 of all that the export read, so that it need not make the same bundle again; None if not stated.
        name: What the person who exported the model calls it; None for a model that ships with slmx.
    """

    preset: str
    target: str
    default: str
    shape: GPTConfig
    checkpoint: MadeFrom
    judged_on: JudgedOn
    variants: Mapping[str, VariantEntry]
    versions: Mapping[str, bool | int | str]
    files: Mapping[str, FileEntry]
    tokenizer: TokenizerSettings = DEFAULT_SETTINGS
    chat: ChatTemplate = STORY_TEMPLATE
    inputs: str | None = None
    name: str | None = None

    @property
    def title(self) -> str:
        """What the model is called."""
        return self.name or self.preset

    @classmethod
    def read(cls, content: bytes, where: str, remedy: str = "copy the bundle again, or export it again") -> Manifest:
        """Reads and checks a manifest of any supported version.

        Args:
            content: The bytes of `manifest.json`.
            where: The place to name in error messages.
            remedy: What to do about a damaged manifest, for error messages.

        Raises:
            SlmxError: A value is missing, of the wrong type, too large, or was changed after the export.
        """
        try:
            if len(content) > MAX_MANIFEST_BYTES:
                raise ValueError(f"more than {MAX_MANIFEST_BYTES:,} bytes")
            values = parse_json(content)
            fields = Fields(values)
            version = fields.integer("format_version")
        except ValueError as error:
            raise SlmxError(f"{where}: not a bundle manifest ({error}); {remedy}") from None
        if version not in READABLE_VERSIONS:
            what_next = "upgrade slmx" if version > FORMAT_VERSION else "export it again"
            raise SlmxError(f"{where}: bundle format {version}, this slmx reads {FORMAT_VERSION}; {what_next}")
        try:
            if version >= 3 and fields.sha256("digest") != digest_of(values):
                raise ValueError("it was changed after the export: its digest is another one")
            return _read_whole(fields, version)
        except (ValueError, SlmxError) as error:
            raise SlmxError(f"{where}: not a usable bundle manifest ({error}); {remedy}") from None

    def to_bytes(self) -> bytes:
        """Returns the manifest as JSON, with its digest, ready to be written."""
        values = {"format_version": FORMAT_VERSION, **plain(self)} | {"shape": self.shape.to_dict()}
        del values["tokenizer"], values["chat"]
        values |= self.tokenizer.listed() | self.chat.listed()
        return (json.dumps({"digest": digest_of(values), **values}, indent=1) + "\n").encode("utf-8")


def digest_of(values: object) -> str:
    """Returns the SHA-256 of a manifest's values except its digest, as JSON without spaces and with sorted keys."""
    assert isinstance(values, dict)
    covered = {key: value for key, value in values.items() if key != "digest"}
    return sha256_of_bytes(json.dumps(covered, sort_keys=True, separators=(",", ":")).encode("ascii"))


def plain(record: Any) -> dict[str, Any]:  # noqa: ANN401  # any dataclass
    """Returns a dataclass as a JSON object. Values that are None, empty or NaN are left out."""

    def kept(values: Mapping[str, Any]) -> dict[str, Any]:
        inner = {key: kept(value) if isinstance(value, Mapping) else value for key, value in values.items()}
        return {key: value for key, value in inner.items() if value not in (None, ()) and value == value}

    return kept(asdict(record))


def _read_whole(fields: Fields, version: int) -> Manifest:
    files = {name: _read_file(fields.object("files"), name) for name in fields.object("files")}
    _check_names(files)
    listed = fields.object("variants")
    variants = {name: _read_variant(listed, name, version) for name in listed}
    unlisted = [entry.file for entry in variants.values() if entry.file not in files]
    if unlisted or not variants:
        raise ValueError(f"lists no hash for {', '.join(unlisted) or 'any variant'}")
    default = fields.name("default")
    if default not in variants:
        raise ValueError(f"its default variant {default} is not listed")
    tokenizer = TokenizerSettings.read(fields)
    checkpoint, judged_on = fields.object("checkpoint"), fields.object("judged_on")
    return Manifest(
        preset=fields.name("preset"),
        target=fields.name("target"),
        default=default,
        shape=_read_shape(fields.object("shape")),
        checkpoint=MadeFrom(
            checkpoint.sha256("sha256"),
            checkpoint.flag("untrained"),
            checkpoint.optional("source", checkpoint.text),
            checkpoint.optional("licence", checkpoint.text),
        ),
        judged_on=JudgedOn(judged_on.text("text"), judged_on.integer("tokens")),
        variants=variants,
        versions=fields.scalars("versions"),
        files=files,
        tokenizer=tokenizer,
        chat=ChatTemplate.read(fields, tokenizer),
        inputs=fields.optional("inputs", fields.sha256),
        name=fields.optional("name", fields.text),
    )


def is_plain_path(name: str) -> bool:
    """Returns whether a name is a path below a folder on every system, with `/` between its parts."""
    return len(name) <= MAX_PATH and all(is_plain_name(part) for part in name.split("/"))


def _check_names(files: Collection[str]) -> None:
    """Raises ValueError if some systems take two names for one, or a name for the folder of another one."""
    names = [name.casefold() for name in (MANIFEST_FILE, *COMPANIONS, *files)]
    if len(set(names)) < len(names):
        raise ValueError("two files have names that some systems take for one")
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    if folders & set(names):
        raise ValueError(f"{min(folders & set(names))} is a file and a folder")


def _read_shape(fields: Fields) -> GPTConfig:
    for name, most in MAX_SIZES.items():
        fields.integer(name, 1, most)
    for name, most in MAX_OPTIONAL_SIZES.items():
        fields.optional(name, lambda key, most=most: fields.integer(key, 0, most))  # type: ignore[misc]
    shape = GPTConfig.from_dict({name: fields.value(name) for name in fields}, "shape")
    if shape.cache_bytes > MAX_CACHE_BYTES:
        raise ValueError(f"shape: the keys and values of one story would take {shape.cache_bytes / 2**30:,.0f} GiB")
    return shape


def _read_file(files: Fields, name: str) -> FileEntry:
    """Returns the entry of a file. Its name must be a path below the bundle on every system."""
    if not is_plain_path(name):
        raise ValueError(f"the file name {name[:80]!a} is not a plain path below the bundle")
    if name in (MANIFEST_FILE, *COMPANIONS):
        raise ValueError(f"it lists {name}, which is no part of a bundle")
    entry = files.object(name)
    return FileEntry(entry.text("what"), entry.integer("bytes", most=MAX_FILE_BYTES), entry.sha256("sha256"))


def _read_variant(variants: Fields, name: str, version: int) -> VariantEntry:
    entry = variants.object(name)
    if name not in VARIANTS:
        raise ValueError(f"this slmx knows no variant {name[:40]!a}")
    if entry.text("file") != VARIANTS[name].file:
        raise ValueError(f"the file of {name} is not {VARIANTS[name].file}")

    def exclusion(key: str) -> Exclusion:
        inner = entry.object(key)
        return Exclusion(
            inner.texts("names"),
            read_increase(inner, "_without"),
            inner.integer("bytes_added", -MAX_FILE_BYTES, MAX_FILE_BYTES),
            inner.number("step_time_ratio"),
        )

    return VariantEntry(
        file=VARIANTS[name].file,
        figures=read_figures(entry.object("figures") if version >= 3 else entry),
        recipe=entry.optional("recipe", entry.text),
        settings=entry.optional("settings", entry.scalars),
        kept_float=entry.optional("kept_float", entry.texts) or (),
        exclusion=entry.optional("exclusion", exclusion),
        opset=entry.optional("opset", entry.integer),
        of=entry.optional("of", entry.name),
    )
