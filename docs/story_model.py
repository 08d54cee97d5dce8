# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a text to a story
#
# This notebook trains a language model from nothing on two processor cores, looks at what each part does, and writes a story with it. You
# need no knowledge of machine learning. It needs `pip install -e ".[train,export]" jupyterlab`, after the CPU build of PyTorch. On a
# machine that does nothing else it takes about ten minutes, and most of them are the training.
#
# Everything runs on this machine, and nothing is downloaded. Set the environment variable `STORIES` to a text file of your own, with a
# blank line between two stories, and the model learns to write like it.

# %%
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

QUICK = bool(os.environ.get("SLMX_NOTEBOOK_QUICK"))  # the short form that the tests run
STEPS = 60 if QUICK else 900
WORK = Path(tempfile.mkdtemp(prefix="story-"))


PLAIN = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}


def slmx(*arguments):
    """Runs a command of slmx in the folder WORK and returns the lines that it prints, without progress bars and speeds."""
    command = [sys.executable, "-m", "slm", *map(str, arguments)]
    ran = subprocess.run(command, cwd=WORK, env=PLAIN | {"COLUMNS": "120"}, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    lines = [line for line in (ran.stdout + ran.stderr).splitlines() if "━" not in line]
    return [re.sub(r"\s+[\d,]+ tokens/s", "", line) for line in lines]


# %% [markdown]
# ## 1. A text
#
# A model learns from examples. Without a file of your own, the small model that ships with slmx writes some: 2,400 stories in a minute
# or two. A model that learns from another model's texts is called a student.

# %%
from runtimes import load

text = WORK / "stories.txt"
if own := os.environ.get("STORIES"):
    text.write_bytes(Path(own).read_bytes())
else:
    teacher = load("nano")
    beginnings = ["Once upon a time", "One day", "Once there was", "Lily", "Tom"]
    count, stories = (160 if QUICK else 2400), []
    while len(stories) < count:
        beginning = beginnings[len(stories) // 32 % len(beginnings)]
        written = teacher.generate(beginning, n=32, max_tokens=220, seed=len(stories), temperature=1.0)
        stories += [story.full_text for story in written]
    text.write_text("\n\n".join(" ".join(story.split()) for story in stories), encoding="utf-8")
words = text.read_text(encoding="utf-8").split()
print(f"{len(words):,} words, for example:\n\n{' '.join(words[:60])} ...")

# %% [markdown]
# ## 2. Tokens
#
# The model does not read letters. A tokenizer cuts the text into pieces that are frequent in it, and each piece has a number. Frequent
# words are one piece, rare ones several. The tokenizer is learned from the text: it begins with single bytes, and joins the pair that
# is most frequent, again and again (byte pair encoding).
#
# `slmx prepare` cleans the text, learns the tokenizer, and keeps one story in twenty aside for checks (`valid`). Stories that end in the
# middle of a sentence are left out.

# %%
print(*slmx("prepare", "stories.txt", "--vocab-size", 2000, "--out", "data")[-3:], sep="\n")

from slm.tokenizers.tokenizer import Tokenizer

tokenizer = Tokenizer.load(WORK / "data")
ids = tokenizer.encode("Once upon a time, there was a hippopotamus.")
print("|".join(tokenizer.decode([token]) for token in ids))
print(ids)

# %% [markdown]
# ## 3. The model
#
# A GPT reads ids and says, after each of them, how likely every token of the vocabulary is to come next. Its parts, in the words of the
# literature:
#
# - **Embedding**: each id becomes a vector of 128 numbers. Its place in the text turns parts of it by an angle.
# - **Attention**: each place looks back at earlier ones, and takes from those that matter to it. Four heads do this side by side.
# - **MLP**: ordinary neurons with a gate that opens or closes each of them, at each place alone.
# - **Residual connections and norms**: each part adds to the vector instead of replacing it, and the vector's size is kept in bounds.
# - **Head**: the vector is compared with the embedding of every token. The results are the *logits*.
#
# All of it stands in `slm/model.py`, in a few hundred lines.

# %%
import torch

from slm.model import GPT
from slm.presets import DEFAULT_ARCHITECTURE, PRESETS, as_architecture

shape = as_architecture(PRESETS["nano"].config, DEFAULT_ARCHITECTURE)
config = replace(shape, vocab_size=tokenizer.vocab_size)
model = GPT(config)
logits = model(torch.tensor([ids]))[0]
print(f"{config.parameters:,} parameters; logits of {len(ids)} places: {tuple(logits.shape)}")
chance = logits[-1].softmax(-1).max().item()
print(f"before the training, the likeliest next token has {chance:.2%}: the model knows nothing")

# %% [markdown]
# ## 4. Training
#
# A step takes some text, lets the model predict every next token, and measures the error: the *loss*, the negative logarithm of the
# probability that it gave to the true token. The gradient says in which direction each parameter should move to lower it. After some
# hundred steps the loss has fallen a lot. The *validation* loss is measured on stories that the training never sees: if it
# rises while the other falls, the model learns by heart.

# %%
lines = slmx(
    "train", "--preset", "nano", "--text", "data", "--out", "run", "--steps", STEPS, "--eval-every", max(20, STEPS // 10)
)  # fmt: skip
print(*(line for line in lines if line.startswith("step ")), sep="\n")
read = json.loads((WORK / "run" / "summary.json").read_text(encoding="utf-8"))["tokens"]
there = json.loads((WORK / "data" / "dataset.json").read_text(encoding="utf-8"))["splits"]["train"]["tokens"]
print(f"the model read {read:,} tokens: the whole text {read / there:.1f} times")

# %%
rows = [json.loads(line) for line in (WORK / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
train = [(row["step"], row["loss"]) for row in rows if "loss" in row]
valid = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
plt.figure(figsize=(7, 3))
plt.plot(*zip(*train, strict=True), label="training")
if valid:
    plt.plot(*zip(*valid, strict=True), "o-", label="validation")
plt.xlabel("step")
plt.ylabel("loss, nats per token")
plt.legend()
plt.show()

# %% [markdown]
# Where both curves fall, the model learns what holds for all stories. Where only the training curve falls, it begins to learn its text by
# heart: then more text helps, and more steps do not.
#
# ## 5. Sampling
#
# The model gives probabilities; a story needs one token after the other. Always taking the likeliest one (*greedy*) gives dull
# repetition. Drawing by the probabilities gives variety, and sometimes nonsense, because many unlikely tokens together are
# likely. *Temperature* below 1 makes likely tokens likelier, *top-k* keeps the k likeliest, *top-p* the likeliest that together
# have the probability p.

# %%
from slm.checkpoint import load_checkpoint

trained = load_checkpoint(WORK / "run" / "best")
prompt = "One day, a little girl named Lily went to the"
with torch.inference_mode():
    start = [trained.tokenizer.begin, *trained.tokenizer.encode(prompt)]
    last = trained.model(torch.tensor([start]))[0, -1].double().numpy()


def probabilities(logits, temperature=1.0):
    """Returns the softmax of logits."""
    scaled = (logits - logits.max()) / temperature
    return np.exp(scaled) / np.exp(scaled).sum()


order = np.argsort(-last)[:15]
names = [repr(trained.tokenizer.decode([token])) for token in order.tolist()]
plt.figure(figsize=(8, 3))
for place, temperature in enumerate((0.5, 1.0, 1.5)):
    chances = probabilities(last, temperature)[order]
    plt.bar(np.arange(15) + 0.27 * place, chances, 0.25, label=f"temperature {temperature}")
plt.xticks(np.arange(15) + 0.27, names, rotation=60)
plt.ylabel("probability")
plt.title(f"after: {prompt}")
plt.legend()
plt.show()

# %% [markdown]
# ## 6. Export
#
# For other machines the model becomes an ONNX graph, which onnxruntime computes without PyTorch. `--int8` stores each weight in one
# byte instead of four. That costs a little quality, and the export measures how much: *bits per byte* is the loss in a unit that
# does not depend on the tokenizer.

# %%
slmx("export", "--checkpoint", "run", "--int8", "--out", "bundle")
manifest = json.loads((WORK / "bundle" / "manifest.json").read_text(encoding="utf-8"))
for name, variant in manifest["variants"].items():
    print(f"{name:6} {manifest['files'][variant['file']]['bytes'] / 1e6:5.2f} MB")
quality = manifest["variants"]["int8"]["figures"]["quality"]
print(f"float {quality['float_bits_per_byte']:.4f} bits per byte, int8 {quality['decode']['bits_per_byte']:.4f}")

# %% [markdown]
# ## 7. Speed
#
# A story is written token by token. The *KV cache* keeps what attention computed for earlier places, so that a step reads one token.
# What a step costs then is mostly the time to read the weights from memory, and the overhead of the program around it.
#
# Nothing else should run on the machine during this cell. It prints ratios, because tokens per second say more about the machine than
# about the program. Each program has one thread, they run in turn, and the middle one of several results counts.

# %%
from export.checks.torch_session import float_session
from runtimes.bundle.store import Bundle
from runtimes.engine.decode_time import decode_seconds
from runtimes.engine.session import Session
from runtimes.types import SamplingParams

torch.set_num_threads(1)
bundle = Bundle.open(WORK / "bundle")
sessions = {"PyTorch": float_session(trained.model, 1)}
sessions |= {name: Session.open(bundle.model_bytes(name), bundle.config, 1) for name in bundle.variants}
greedy, rates = SamplingParams(temperature=0), {name: [] for name in sessions}
for _ in range(3 if QUICK else 7):
    for name, session in sessions.items():
        rates[name].append(100 / decode_seconds(session, start[:1], greedy, 100))
for name in bundle.variants:
    print(f"{name:6} {np.median(rates[name]) / np.median(rates['PyTorch']):4.1f} times the speed of PyTorch")

# %% [markdown]
# ## 8. A story
#
# The model saw a few hundred thousand words, for some minutes. It knows how a story begins, and which words go together, but a story
# has no plan: people and things come and go. For what more text and more time give, see the stories of the shipped models in
# [stories.md](stories.md), which read 60 million tokens and learned from a far larger teacher.

# %%
writer = load(WORK / "bundle")
print(writer.generate("Once upon a time", max_tokens=150, seed=3).full_text)
