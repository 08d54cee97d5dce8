"""The peers by name. A runtime is imported only when a peer of it is prepared or opened."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from benchmarks.peers import Peer, PeerKind
from benchmarks.report.families import SAME_WEIGHTS
from slm.console.errors import UsageError, unknown


def _kind(
    name: str,
    module: str,
    setting: str | None = None,
    *,
    modules: tuple[str, ...],
    writers: tuple[str, ...] = (),
    install: str,
    weights: tuple[str, ...],
    any_shape: bool = False,
    reads: bool = False,
    writes_rows: bool = False,
) -> PeerKind:
    """Returns a kind whose `prepare` and `open_peer` are in a module of this package.

    `setting` is the last argument of its `prepare`; the other arguments are the fields of `PeerKind`. It is exact if
    it has the weights of fp32.
    """
    settings = () if setting is None else (setting,)

    def prepare(checkpoint: Path, bundle: Path, folder: Path) -> None:
        import_module(f"benchmarks.peers.{module}").prepare(checkpoint, bundle, folder, *settings)

    def open_peer(folder: Path, threads: int) -> Peer:
        peer: Peer = import_module(f"benchmarks.peers.{module}").open_peer(folder, threads)
        return peer

    exact = SAME_WEIGHTS.get(name) == "fp32"
    return PeerKind(name, modules, install, prepare, open_peer, writers, weights, exact, any_shape, reads, writes_rows)


_ALL = (
    *(
        _kind(
            f"llama.cpp {kind}",
            "llama_cpp",
            kind,
            modules=("llama_cpp",),
            writers=("gguf",),
            install="pip install llama-cpp-python gguf",
            weights=("model.gguf",),
            reads=True,
            writes_rows=True,
        )
        for kind in ("F32", "Q8_0", "Q4_0")
    ),
    _kind(
        "optimum",
        "optimum_export",
        modules=("optimum.onnxruntime",),
        install='pip install "optimum-onnx[onnxruntime]"',
        weights=("model.onnx",),
    ),
    *(
        _kind(
            f"onnxruntime-genai {variant}",
            "genai",
            variant,
            modules=("onnxruntime_genai",),
            install="pip install onnxruntime-genai",
            weights=("model.onnx",),
            any_shape=True,
        )
        for variant in ("fp32", "int8")
    ),
    *(
        _kind(
            f"CTranslate2 {quantization}",
            "ctranslate",
            quantization,
            modules=("ctranslate2",),
            writers=("transformers",),
            install="pip install ctranslate2 transformers",
            weights=("model.bin",),
            reads=True,
        )
        for quantization in ("float32", "int8")
    ),
    _kind(
        "OpenVINO fp32",
        "open_vino",
        modules=("openvino",),
        install="pip install openvino",
        weights=("model.xml", "model.bin"),
        any_shape=True,
    ),
    _kind(
        "Hugging Face generate",
        "hugging_face",
        modules=("torch", "transformers"),
        install="pip install transformers",
        weights=("model.safetensors",),
    ),
)
PEERS: dict[str, PeerKind] = {kind.name: kind for kind in _ALL}
# The runtimes by the names that stand for all their peers.
RUNTIMES = tuple(dict.fromkeys(name.rpartition(" ")[0] or name for name in PEERS))
# What --peers takes for none of them.
NO_PEERS = "none"


def find_peer(name: str) -> PeerKind:
    """Returns the peer with a name; UsageError with all names if there is none."""
    if name not in PEERS:
        raise UsageError(unknown("peer", name, list(dict.fromkeys((*RUNTIMES, *PEERS, NO_PEERS)))))
    return PEERS[name]


def find_peers(name: str) -> list[PeerKind]:
    """Returns the peer with a name, or all peers of a runtime: "llama.cpp" has three. UsageError as in `find_peer`."""
    family = [kind for kind in PEERS.values() if kind.name.startswith(f"{name} ")]
    return family or [find_peer(name)]
