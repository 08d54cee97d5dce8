"""Reads the tokenizer of a folder that lists the SHA-256 of its files: a checkpoint, a data set or a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slm.console.errors import SlmxError
from slm.storage.file_names import JSON_FILE, RANKS_FILE
from slm.storage.hashing import sha256_of_bytes
from slm.storage.json_reader import Fields, parse_json, read_limited
from slm.storage.listing import check_file, not_replaced
from slm.storage.read_errors import unreadable
from slm.tokenizers.settings import MAX_LISTING_BYTES, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer
from slm.tokenizers.tokenizer_json import load_merges

# The listing of a bundle, a data set and a checkpoint, and the key of its table of files. A bundle has a config.json
# too, which is not ours.
LISTINGS = {"manifest.json": "files", "dataset.json": "files", "config.json": "sha256"}


@dataclass(frozen=True)
class ListedTokenizer:
    """The tokenizer of a folder that lists it.

    Attributes:
        folder: The folder.
        tokenizer: The tokenizer.
        merges: Its merges in the order they were learned.
        sha256: The SHA-256 of its rank file.
    """

    folder: Path
    tokenizer: Tokenizer
    merges: list[tuple[str, str]]
    sha256: str


def load_listed(folder: Path) -> ListedTokenizer:
    """Reads the tokenizer of a folder, after a check of its two files against the listing.

    Args:
        folder: A checkpoint, a data set or a bundle.

    Returns:
        The tokenizer.

    Raises:
        SlmxError: The folder has no listing, the listing is damaged or lists no tokenizer, or a file of the tokenizer
            is missing, altered or damaged, or another folder took its place meanwhile. The message names the file.
    """
    name = next((name for name in LISTINGS if (folder / name).is_file()), None)
    if name is None:
        raise SlmxError(
            f"{folder}: holds none of {', '.join(LISTINGS)}, so slmx cannot check its tokenizer; copy the folder "
            "again, whole"
        )
    path = folder / name
    try:
        content = read_limited(path, MAX_LISTING_BYTES)
        listing = Fields(parse_json(content))
        settings = TokenizerSettings.read(listing)
        files = listing.object(LISTINGS[name])
        digests = {
            file: files.sha256(file) if LISTINGS[name] == "sha256" else files.object(file).sha256("sha256")
            for file in (RANKS_FILE, JSON_FILE)
        }
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise unreadable(path, error, "what it says of the tokenizer", "copy the folder again") from None
    with not_replaced(path, sha256_of_bytes(content), "folder"):
        for file, digest in digests.items():
            check_file(folder / file, digest, path.name)
        return ListedTokenizer(folder, Tokenizer.load(folder, settings), load_merges(folder), digests[RANKS_FILE])
