"""Two examples for each command, at the end of its help page."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "generate": (
        'slmx generate "Once upon a time" --seed 7',
        "slmx generate --prompts prompts.txt --out stories.jsonl",
    ),
    "serve": ("slmx serve", "slmx serve nano micro --port 9000"),
    "web": ("slmx web nano micro --out site", "slmx web bundles/mine --serve"),
    "list": ("slmx list", "slmx list --json"),
    "info": ("slmx info", "slmx info bundles/mine"),
    "verify": ("slmx verify bundles/mine", "slmx verify bundles/mine --quality --runtimes optimum,genai"),
    "export": ("slmx export --preset nano --int8", "slmx export --checkpoint runs/mine --target pi4 --out bundles/pi4"),
    "import": (
        "slmx import HuggingFaceTB/SmolLM2-135M --out models/smol",
        "slmx import model.gguf --out models/mine",
    ),
    "rm": ("slmx rm OWNER/NAME", "slmx rm bundles/mine --yes"),
    "presets": ("slmx presets", "slmx presets | grep nano"),
    "prepare": (
        "slmx prepare stories.txt --out data/mine",
        "slmx prepare corpus.parquet --field story --out data/mine",
    ),
    "train": (
        "slmx train --preset nano --text data/mine --out runs/mine",
        "slmx train --resume --out runs/mine",
    ),
    "evaluate": (
        "slmx evaluate runs/mine --text data/mine",
        "slmx evaluate bundles/mine --variant all --against fp32 --text data/mine --out quality",
    ),
    "average": (
        "slmx average runs/mine/step-0001000 runs/mine/step-0002000 --text data/mine --out models/average",
        "slmx average runs/one runs/other --text data/mine --out models/average",
    ),
    "pull": ("slmx pull OWNER/NAME", "slmx pull OWNER/NAME --require-signature mine.pub"),
    "push": ("slmx push bundles/mine OWNER/NAME", "slmx push bundles/mine OWNER/NAME --private"),
    "pack": ("slmx pack nano", "slmx pack bundles/mine --out mine.slmx"),
    "unpack": ("slmx unpack nano.slmx", "slmx unpack nano.slmx --out bundles/copy"),
    "sign": ("slmx sign nano.slmx --key mine.key", "slmx sign bundles/mine --key mine.key"),
    "keygen": ("slmx keygen", "slmx keygen --out keys/mine"),
    "doctor": ("slmx doctor", "slmx doctor --bundle bundles/mine --pin"),
    "bench": ("slmx bench --quick", "slmx bench bundles/mine --text stories.txt --out runs/bench"),
    "compare": (
        "slmx compare before/report.json after/report.json",
        "slmx compare before/report.json after/report.json --fail-over 10%",
    ),
}
