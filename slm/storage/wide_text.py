"""Recognizes texts in UTF-16 and UTF-32, as some editors and spreadsheets write them, by their first bytes."""

from __future__ import annotations

import codecs

# UTF-32 must be first because its little-endian mark begins with the mark of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def wide_text(head: bytes) -> str | None:
    """Returns what is wrong and what to do if a file begins as UTF-16 or UTF-32; None if it does not.

    Args:
        head: The first bytes of the file, 4 at least if it has them.
    """
    found = next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)
    return None if found is None else f"{found} text; convert it with iconv -f {found} -t UTF-8 FILE > NEW"
