"""The files of a bundle: bytes by name from a folder or a zip archive, checked when they are used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtimes.bundle.location import how_to_restore
from runtimes.bundle.manifest import COMPANIONS, MAX_MANIFEST_BYTES, SIGNATURE_FILE, Manifest
from runtimes.bundle.variants import VARIANTS
from slm.console.errors import SlmxError, did_you_mean
from slm.folder_kind import Kind, wrong_kind
from slm.presets import GPTConfig
from slm.storage.disk import is_temporary
from slm.storage.file_names import MANIFEST_FILE, RANKS_FILE
from slm.storage.hashing import sha256_of_bytes
from slm.storage.read_errors import unreadable
from slm.tokenizers.tokenizer import Tokenizer

FOLDER_REMEDY = "copy the folder again, whole, or export it to another --out"


class Store(Protocol):
    """Gives the bytes of a file by its name in a manifest. A store does not check hashes; `Bundle` does.

    Attributes:
        remedy: What to do about a missing or damaged file, for messages.
    """

    remedy: str

    def read(self, name: str, most: int) -> bytes:
        """Returns the bytes of a file.

        Args:
            name: A name that `Manifest.read` accepted: a plain path below the bundle.
            most: The largest number of bytes. A longer file gives `most` + 1 bytes or SlmxError.

        Raises:
            SlmxError: The file is missing, cannot be read, or is outside the bundle.
        """

    def names(self) -> list[str]:
        """Returns the names of all files and links, sorted."""

    def location(self, name: str) -> str:
        """Returns where a file is, for messages."""


class FolderStore:
    """The files of a folder. Links in it are followed as long as they stay in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.remedy = how_to_restore(folder) or FOLDER_REMEDY

    def location(self, name: str) -> str:
        """Returns where a file is, for messages."""
        return str(self._folder / name)

    def path(self, name: str) -> Path:
        """Returns the path of a file; SlmxError if a link leads out of the folder."""
        path = self._folder / name
        root = Path(os.path.realpath(self._folder))
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise SlmxError(f"{path}: a link out of the bundle; copy the files themselves (cp -rL), or export it again")
        return path

    def read(self, name: str, most: int) -> bytes:
        """Returns the bytes of a file, as in `Store`."""
        path = self.path(name)
        try:
            if path.exists() and not path.is_file():
                raise SlmxError(f"{path}: cannot read (not a file); {self.remedy}")
            with path.open("rb") as file:
                return file.read(most + 1)
        except FileNotFoundError:
            raise SlmxError(f"{path}: missing from the bundle; {self.remedy}") from None
        except OSError as error:
            raise unreadable(path, error) from None

    def names(self) -> list[str]:
        """Returns the names of all files and links below the folder, sorted. A link to a folder is not followed.

        What a killed writer left is not among them.
        """
        found = []
        for root, folders, files in os.walk(self._folder):
            links = [name for name in folders if (Path(root) / name).is_symlink()]
            names = [*(name for name in files if not is_temporary(name)), *links]
            found += [(Path(root) / name).relative_to(self._folder).as_posix() for name in names]
        return sorted(found)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Its manifest was checked. Each other file is checked when it is read. Thread-safe.

    Attributes:
        path: The folder or the archive.
        store: The files in it.
        manifest: Its manifest.
        manifest_sha256: SHA-256 of the bytes of its manifest. It identifies the bundle.
    """

    path: Path
    store: Store
    manifest: Manifest
    manifest_sha256: str

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Opens a folder or a zip archive.

        Raises:
            SlmxError: The path is not a bundle, or the manifest is damaged or of another format.
        """
        store = _open_store(path)
        content = store.read(MANIFEST_FILE, MAX_MANIFEST_BYTES)
        manifest = Manifest.read(content, store.location(MANIFEST_FILE), store.remedy)
        return cls(path, store, manifest, sha256_of_bytes(content))

    @property
    def is_archive(self) -> bool:
        """Whether the bundle is an archive."""
        return not isinstance(self.store, FolderStore)

    @property
    def signature_path(self) -> Path:
        """Where the signature of `slmx sign` is: in the folder, or beside the archive."""
        return self.beside(SIGNATURE_FILE)

    def beside(self, companion: str) -> Path:
        """Returns the path of one of `COMPANIONS`, which may be missing: in the folder, or beside the archive."""
        if self.is_archive:
            return self.path.with_name(f"{self.path.name}{COMPANIONS[companion]}")
        return self.path / companion

    @property
    def config(self) -> GPTConfig:
        """The shape of the model."""
        return self.manifest.shape

    @property
    def variants(self) -> list[str]:
        """Names of the variants that onnxruntime runs, the default first, then as the manifest lists them."""
        names = [name for name in self.manifest.variants if not VARIANTS[name].is_torch]
        return sorted(names, key=lambda name: name != self.manifest.default)

    def choose(self, variant: str | None = None) -> str:
        """Returns the name of a variant that onnxruntime runs.

        Args:
            variant: The wanted variant. None takes the default of the bundle, or else the first that onnxruntime runs.

        Raises:
            SlmxError: The bundle does not hold the variant, or only PyTorch runs it. The message lists the variants.
        """
        if not self.variants:
            raise SlmxError(f"{self.path}: no variant for onnxruntime in this bundle; export it again with --int8")
        chosen = variant or self.variants[0]
        if chosen in self.manifest.variants and VARIANTS[chosen].is_torch:
            raise SlmxError(f"{self.path}: {chosen} is for PyTorch; onnxruntime runs {', '.join(self.variants)}")
        if chosen not in self.variants:
            held = ", ".join(self.variants)
            if chosen in VARIANTS:
                makes = f"slmx export {self.exported_from} --{chosen} --out NEW makes one"
                raise SlmxError(f"{self.path}: no variant {chosen} in it, which holds {held}; {makes}")
            raise SlmxError(
                f"{self.path}: no variant {chosen[:80]!r}{did_you_mean(chosen, self.variants)}; it holds {held}"
            )
        return chosen

    @property
    def exported_from(self) -> str:
        """The option of `slmx export` that names the checkpoint of this bundle, as far as the bundle knows it."""
        return f"--preset {self.manifest.preset}" if self.manifest.name is None else "--checkpoint RUN"

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file, which have the size and the SHA-256 that the manifest lists.

        Raises:
            SlmxError: The manifest does not list the file, or the file cannot be read or has other bytes.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise SlmxError(f"{self.store.location(MANIFEST_FILE)}: lists no {name}; export it again")
        content = self.store.read(name, entry.bytes)
        if len(content) != entry.bytes or sha256_of_bytes(content) != entry.sha256:
            raise SlmxError(
                f"{self.store.location(name)}: not the file that {MANIFEST_FILE} lists (SHA-256 differs); "
                f"{self.store.remedy}"
            )
        return content

    def manifest_bytes(self) -> bytes:
        """Returns the bytes of the manifest; SlmxError if they are no longer those that were opened."""
        content = self.store.read(MANIFEST_FILE, MAX_MANIFEST_BYTES)
        if sha256_of_bytes(content) != self.manifest_sha256:
            raise SlmxError(f"{self.store.location(MANIFEST_FILE)}: changed meanwhile; run the command again")
        return content

    def model_bytes(self, variant: str) -> bytearray:
        """Returns the checked model file of a variant for onnxruntime; SlmxError as in `choose` and `read`."""
        return bytearray(self.read(self.manifest.variants[self.choose(variant)].file))

    def model_location(self, variant: str) -> str:
        """Returns where the model file of a variant for onnxruntime is, for messages; SlmxError as in `choose`."""
        return self.store.location(self.manifest.variants[self.choose(variant)].file)

    def model_file(self, variant: str | None) -> Path | bytes:
        """Returns a variant's model file for a library: its path, or its content if the bundle is an archive.

        The file is checked as in `model_path`; arguments and errors as there.
        """
        if self.is_archive:
            return self.read(self.manifest.variants[self._any(variant)].file)
        return self.model_path(variant)

    def model_path(self, variant: str | None) -> Path:
        """Returns the path of a variant's model file, for libraries that open files by themselves.

        The file is checked now. If it changes before the library reads it, slmx does not notice.

        Args:
            variant: Any variant of the bundle, including those for PyTorch; None chooses as `choose` does.

        Raises:
            SlmxError: As in `read`, the bundle does not hold the variant, or it is an archive, which has no paths.
        """
        name = self._any(variant)
        if not isinstance(self.store, FolderStore):
            raise SlmxError(
                f"{self.path}: an archive, and {name} is needed as a file; slmx unpack makes a folder of it"
            )
        file = self.manifest.variants[name].file
        self.read(file)
        return self.store.path(file)

    def _any(self, variant: str | None) -> str:
        return variant if variant is not None and variant in self.manifest.variants else self.choose(variant)

    def tokenizer(self) -> Tokenizer:
        """Returns the tokenizer, from the rank file; SlmxError if it has another number of tokens than the model."""
        tokenizer = Tokenizer.from_bytes(
            self.read(RANKS_FILE), self.store.location(RANKS_FILE), self.manifest.tokenizer
        )
        if tokenizer.vocab_size != self.config.vocab_size:
            raise SlmxError(
                f"{self.path}: {tokenizer.vocab_size} tokens but {self.config.vocab_size} logits; export it again"
            )
        return tokenizer

    def extra_files(self) -> list[str]:
        """Returns the names of the files in the bundle that the manifest does not list."""
        beside = () if self.is_archive else COMPANIONS
        known = {MANIFEST_FILE, *beside, *self.manifest.files}
        return [name for name in self.store.names() if name not in known]

    def problems(self) -> list[str]:
        """Returns a line for every listed file that is missing or changed, and for every file that is not listed."""
        found = []
        for name in self.manifest.files:
            try:
                self.read(name)
            except SlmxError as error:
                found.append(str(error))
        for name in self.extra_files():
            found.append(f"{self.path}: {name!a} is not listed in {MANIFEST_FILE}; take it out of the bundle")
        return found

    def check_listed_files(self) -> None:
        """Reads every listed file; SlmxError for the first one that is missing or changed. Other files are allowed."""
        for name in self.manifest.files:
            self.read(name)

    def check_only_listed_files(self) -> None:
        """Does as `check_listed_files`, and allows no other file; SlmxError for the first line of `problems`."""
        for line in self.problems():
            raise SlmxError(line)


def _open_store(path: Path) -> Store:
    if path.is_file():
        from runtimes.bundle.archive import ZipStore

        return ZipStore(path)
    if not (path / MANIFEST_FILE).is_file():
        raise wrong_kind(path, Kind.BUNDLE)
    return FolderStore(path)
