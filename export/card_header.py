"""The YAML header of a model card. Hubs read the licence, the library and the tags of a model from it."""

from __future__ import annotations

import json

# The identifiers in https://huggingface.co/docs/hub/repositories-licenses, without "other" and "unknown". The hub shows
# any other one as an error.
_LISTED = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0
gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0
ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 pddl postgresql unlicense wtfpl zlib
"""
HUB_LICENCES = frozenset(_LISTED.split())
TAGS = ("onnx", "slmx", "story")


def card_header(licence: str | None) -> str:
    """Returns the header, from its first line `---` to its last.

    Args:
        licence: The licence of the text or the model, in the words of the user; several have semicolons between them.
            The hub knows a part that is the identifier of a licence, a list of them, or any text with a comma and an
            identifier after it. Case is ignored.
    """
    lines = [*_licence_lines(licence), "library_name: slmx", "pipeline_tag: text-generation", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in TAGS), "---"])


def _licence_lines(licence: str | None) -> list[str]:
    if licence is None:
        return []
    found = dict[str, None]()
    for part in licence.split(";"):
        names = [name.strip().lower() for name in part.split(",")]
        found |= dict.fromkeys(names if HUB_LICENCES.issuperset(names) else names[-1:])
    if not HUB_LICENCES.issuperset(found):
        return ["license: other", f"license_name: {json.dumps(licence, ensure_ascii=False)}"]
    return [f"license: {next(iter(found))}"] if len(found) == 1 else ["license:", *(f"- {name}" for name in found)]
