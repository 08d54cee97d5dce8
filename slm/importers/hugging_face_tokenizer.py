"""Converts the tokenizer of a Hugging Face folder: a `tokenizer.json`, or GPT-2's `vocab.json` and `merges.txt`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slm.console.errors import SlmxError
from slm.importers.hugging_face_weights import read_json_object
from slm.importers.imported_tokenizer import (
    ImportedTokenizer,
    Vocabulary,
    check_agreement,
    convert,
    reachable,
    shown_token,
    some,
)
from slm.importers.split_rules import find_rules
from slm.storage.file_names import CONFIG_FILE, JSON_FILE
from slm.storage.json_reader import Fields, read_json, read_limited
from slm.storage.read_errors import unreadable
from slm.tokenizers.settings import END_OF_TEXT, TokenizerSettings
from slm.tokenizers.tokenizer_json import MAX_JSON_BYTES, pipeline, read_merges

VOCABULARY_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
SENTENCEPIECE_FILE = "tokenizer.model"  # transformers converts it to a tokenizer.json
# Settings of BPE in `model` that slmx does not have.
NOT_COMPUTED = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
ADDED_FILE = "added_tokens.json"
SETTINGS_FILE = "tokenizer_config.json"
GPT2_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")
ADDED_TOKEN = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
# An added token is special if its entry says so, if it has one of these roles in `tokenizer_config.json`, or if it has
# one of these usual spellings. slmx keeps those that begin and end a text, and reads the others as plain text.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
CONTROL_TOKENS = frozenset(
    [
        "<s>",
        "</s>",
        "<pad>",
        "<unk>",
        "<mask>",
        "<bos>",
        "<eos>",
        "<sep>",
        "<cls>",
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[BOS]",
        "[EOS]",
        "<|endoftext|>",
        "<|startoftext|>",
        "<|pad|>",
        "<|padding|>",
    ]
)


def import_tokenizer(folder: Path, config: Mapping[str, object] | None) -> ImportedTokenizer:
    """Reads the tokenizer of a Hugging Face folder.

    Args:
        folder: The folder.
        config: The content of its `config.json`, which names the ids of the tokens that begin and end a text. None if
            the folder has no such file; `tokenizer_config.json` must name the two tokens then.

    Raises:
        SlmxError: A file is missing or damaged, the tokenizer is of a kind that slmx does not know, has added tokens
            that slmx cannot keep, or splits a text in a different way than slmx.
    """
    path = folder / (JSON_FILE if (folder / JSON_FILE).is_file() else VOCABULARY_FILE)
    try:
        content = _read(folder) if path.name == JSON_FILE else _read_gpt2(folder)
        source = _vocabulary(Fields(content), _roles(folder), config, path)
    except FileNotFoundError:
        raise _no_tokenizer(folder) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise SlmxError(f"{path}: not a BPE tokenizer that slmx knows ({error}); download the folder again") from None
    imported = convert(source, str(path))
    check_agreement(imported, str(path), json.dumps(content))
    return imported


def _no_tokenizer(folder: Path) -> SlmxError:
    """Makes the error for a folder without the files of a tokenizer that slmx reads."""
    if (folder / SENTENCEPIECE_FILE).is_file():
        advice = "transformers writes one: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
    else:
        advice = (
            "copy the tokenizer that the model was trained with into the folder; transformers writes that of GPT-2: "
            'AutoTokenizer.from_pretrained("gpt2").save_pretrained(DIR)'
        )
    return SlmxError(f"{folder}: holds no {JSON_FILE}; {advice}")


def _read(folder: Path) -> object:
    return read_json(folder / JSON_FILE, MAX_JSON_BYTES)


def _read_gpt2(folder: Path) -> dict[str, Any]:
    """Returns the tokenizer.json of a folder that has GPT-2's older files instead."""
    vocab = read_json(folder / VOCABULARY_FILE, MAX_JSON_BYTES)
    lines = read_limited(folder / MERGES_FILE, MAX_JSON_BYTES).decode("utf-8").split("\n")
    start = 1 if lines[0].startswith("#version") else 0
    settings = _optional(folder / SETTINGS_FILE)
    found = settings.get("tokenizer_class", GPT2_CLASSES[0])
    if found not in GPT2_CLASSES or settings.get("add_prefix_space"):
        raise SlmxError(
            f"{folder / VOCABULARY_FILE}: of the tokenizer {shown_token(str(found))}, and without a {JSON_FILE} "
            f"slmx reads {GPT2_CLASSES[0]} without add_prefix_space only; "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) of transformers writes that file"
        )
    model = {"type": "BPE", "vocab": vocab, "merges": [line.rstrip("\r") for line in lines[start:] if line.strip()]}
    added = [ADDED_TOKEN | {"id": number, "content": token} for token, number in _optional(folder / ADDED_FILE).items()]
    return {"added_tokens": added, **pipeline(TokenizerSettings()), "model": model}


def is_there(path: Path) -> bool:
    """Returns whether a folder has a file of this name, also if it is a link to a file that is missing."""
    return path.exists() or path.is_symlink()


def _optional(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; empty if the file is missing."""
    return read_json_object(path, "a file of a tokenizer") if is_there(path) else {}


def _roles(folder: Path) -> dict[str, str]:
    """Returns the tokens that `tokenizer_config.json` names, by their role."""
    settings = _optional(folder / SETTINGS_FILE)
    named = {role: settings.get(role) for role in ROLES}
    tokens = {role: token.get("content") if isinstance(token, dict) else token for role, token in named.items()}
    return {role: token for role, token in tokens.items() if isinstance(token, str)}


def _ids_of_roles(
    roles: Mapping[str, str], ids: Mapping[str, int], ordinary: set[str], folder: Path
) -> dict[str, object]:
    """Returns what a config.json would say of the tokens that begin and end a text."""
    if "eos_token" not in roles:
        raise SlmxError(
            f"{folder / CONFIG_FILE}: missing, and {SETTINGS_FILE} names no eos_token; write "
            f'{{"eos_token_id": ID}} into {CONFIG_FILE}, with the id of the token that ends a text'
        )
    for role in ("eos_token", "bos_token"):
        if role in roles and (roles[role] not in ids or roles[role] in ordinary):
            raise SlmxError(
                f"{folder / SETTINGS_FILE}: {role} is {shown_token(roles[role])}, which is no special token of this "
                "tokenizer; download the folder again"
            )
    return {f"{role}_id": ids[roles[role]] for role in ("eos_token", "bos_token") if role in roles}


def _vocabulary(
    stored: Fields, roles: Mapping[str, str], config: Mapping[str, object] | None, path: Path
) -> Vocabulary:
    """Returns the tokens of a tokenizer.json.

    Raises:
        ValueError: A value is missing or of the wrong type.
        SlmxError: slmx cannot run this tokenizer.
    """
    model = stored.object("model")
    merges = read_merges(model)
    for key in NOT_COMPUTED:
        if model.optional(key, model.value):
            raise SlmxError(f"{path}: {key} is {shown_token(str(model.value(key)))}; slmx splits without it only")
    tokens = model.object("vocab")
    vocab = {token: tokens.integer(token) for token in tokens}
    added, control = _added_tokens(stored), CONTROL_TOKENS.union(roles.values())
    rules = find_rules(stored, str(path))
    specials = {token: number for token, (number, special) in added.items() if special or token in control}
    ids = vocab | {token: number for token, (number, _) in added.items()}
    ordinary = reachable(vocab, merges, specials)
    if config is None:
        config = _ids_of_roles(roles, ids, ordinary, path.parent)
    end = _special("eos_token_id", config, ids, ordinary, path) or END_OF_TEXT
    if end not in ids:
        raise SlmxError(f"{path}: no end-of-text token; name its id as eos_token_id in config.json")
    begin = _special("bos_token_id", config, ids, ordinary, path)
    settings = TokenizerSettings(rules.scheme, end, None if begin == end else begin, rules.prefix)
    specials |= {token: ids[token] for token in settings.specials}
    if unknown := [token for token in added if token not in specials]:
        raise SlmxError(
            f"{path}: has the added tokens {some(unknown)}, which slmx cannot keep; if no text needs them, delete "
            "them from added_tokens in this file and import again"
        )
    return Vocabulary(vocab, merges, specials, settings, model.optional("ignore_merges", model.flag) is True)


def _added_tokens(stored: Fields) -> dict[str, tuple[int, bool]]:
    """Returns the id of each token in `added_tokens`, and whether its entry says that it is special."""
    listed = stored.optional("added_tokens", stored.value) or []
    if not isinstance(listed, list):
        raise ValueError("added_tokens is not a list")
    entries = [Fields(entry, f"added_tokens {number}") for number, entry in enumerate(listed)]
    return {
        entry.text("content"): (entry.integer("id"), entry.optional("special", entry.flag) is True) for entry in entries
    }


def _special(
    key: str, config: Mapping[str, object], ids: Mapping[str, int], ordinary: set[str], path: Path
) -> str | None:
    """Returns the special token whose id config.json names under a key; None if it names none that exists."""
    wanted = config.get(key)
    if isinstance(wanted, list) and len(wanted) == 1:
        wanted = wanted[0]
    place, role = path.with_name(CONFIG_FILE), "begins" if key.startswith("bos") else "ends"
    if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool)):
        raise SlmxError(f"{place}: {key} is {repr(wanted)[:40]}; set it to the id that {role} a text")
    token = next((token for token, number in ids.items() if number == wanted), None)
    if token in ordinary:
        usual = (
            f"{ids[END_OF_TEXT]} ({END_OF_TEXT})" if END_OF_TEXT in ids else f"the id of the token that {role} a text"
        )
        raise SlmxError(
            f"{place}: {key} is {wanted}, the id of the ordinary token {shown_token(str(token))}; set it to {usual}"
        )
    return token
