"""Measures `slmx serve` on this machine: python -m benchmarks.studies.serving --out docs/server.json.

Every figure of docs/server.md comes from it: stories for 64 clients compared with the same batches without a server and
with the servers of llama.cpp, the time to the first token, one stream compared with the model alone, memory, clients
that leave, and clients that hurt. All sides take turns. Nothing else should run.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from benchmarks.child import output_of
from benchmarks.program import run
from benchmarks.serving import disturbances
from benchmarks.serving.client import Connection
from benchmarks.serving.load import Load, prompt, run_load
from benchmarks.serving.servers import Server, llama_python_command, llama_server_command, running, slmx_command
from benchmarks.studies.batches import whole_batch
from benchmarks.studies.figures import Figure, at_least, at_most, table
from benchmarks.studies.memory import peak_of, with_peak
from benchmarks.studies.results import Out, write_results
from runtimes import load as load_generator
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.engine.generator import Generator
from runtimes.types import read_settings
from slm.console.errors import UsageError

SLOTS, CLIENTS, TOKENS = 8, 64, 128
STREAM_TOKENS, STREAMS = 200, 10
LEFT, CONNECTIONS = 20, 10_000
SAMPLED = {"temperature": 0.9, "top_k": 40, "top_p": 0.95}


class Study:
    """The servers, the model without a server, and what was measured.

    Args:
        generator: The model that the server has too.
        rounds: The number of rounds in which all sides take turns.
        seconds: The seconds of a side in a round.
    """

    def __init__(self, generator: Generator, rounds: int, seconds: float) -> None:
        self.generator = generator
        self.rounds, self.seconds = rounds, seconds
        self.figures: list[Figure] = []
        self.samples: dict[str, Any] = {}
        ends = {str(self.generator.tokenizer.end_of_text): -100}
        self.fields = SAMPLED | {"max_tokens": TOKENS, "logit_bias": ends}

    def _say(self, text: str) -> None:
        typer.echo(text, err=True)

    def _batches(self) -> float:
        """Returns the tokens per second of batches without a server."""
        fields = self.fields | {"logit_bias": {self.generator.tokenizer.end_of_text: -100.0}}
        tokens, number, began = 0, 0, perf_counter()
        while perf_counter() - began < self.seconds:
            prompts = [prompt(number + row) for row in range(SLOTS)]
            stories = whole_batch(self.generator, prompts, *read_settings(**fields, seed=number))  # type: ignore[arg-type]
            tokens += sum(len(story.ids) for story in stories)
            number += SLOTS
        return tokens / (perf_counter() - began)

    def many_clients(self, ours: Server, peers: list[Server]) -> None:
        """Measures 64 clients of each server, whole answers and streams, and batches without a server."""
        loads: dict[str, list[Load]] = {}
        batches: list[float] = []
        sides = [
            (server, stream) for server in (ours, *peers) for stream in (False, True) if server.streams or not stream
        ]
        for number in range(self.rounds):
            batches.append(self._batches())
            for server, stream in sides:
                load = run_load(server, CLIENTS, self.seconds, self.fields, stream)
                name = f"{server.name}, {'streams' if stream else 'whole answers'}"
                loads.setdefault(name, []).append(load)
                self._say(f"round {number + 1}: {name}: {load.rate:,.0f} tokens/s, {load.statuses}")
            self._say(f"round {number + 1}: batches: {batches[-1]:,.0f} tokens/s")
        self.samples["batches"] = batches
        self.samples["clients"] = {name: [asdict(load) for load in taken] for name, taken in loads.items()}
        self._clients_figures(batches, loads)

    def _clients_figures(self, batches: list[float], loads: dict[str, list[Load]]) -> None:
        rates = {name: statistics.median(load.rate for load in taken) for name, taken in loads.items()}
        for name, taken in loads.items():
            cores = statistics.median(load.client_cpu / load.seconds for load in taken)
            used = statistics.median(load.server_cpu / load.seconds for load in taken)
            value = f"{rates[name]:,.0f} tokens/s; the server used {used:.2f} cores, the clients {cores:.2f}"
            self.figures.append(Figure(f"{CLIENTS} clients: {name}", value, ""))
        ours = {name: taken for name, taken in loads.items() if name.startswith("slmx")}
        statuses: Counter[int] = Counter()
        for taken in ours.values():
            for load in taken:
                statuses.update(load.statuses)
        strange = sum(count for status, count in statuses.items() if status not in (200, 429))
        told = ", ".join(f"{count:,} of {status}" for status, count in sorted(statuses.items()))
        self.figures.append(Figure("answers", told, "only 200 and 429", strange == 0))
        for name, taken in ours.items():
            ratios = [load.rate / batch for load, batch in zip(taken, batches, strict=True)]
            label = f"{name} / batches of {SLOTS} without a server"
            self.figures.append(at_least(label, statistics.median(ratios), 0.9, "{:.2f}x"))
            first = sorted(second for load in taken for second in load.first)
            if name.endswith("streams") and first:
                middle, late = statistics.median(first), first[int(0.99 * len(first))]
                value = f"{1000 * middle:,.0f} ms, {1000 * late:,.0f} ms"
                self.figures.append(Figure(f"{name}: first token, half and 99 % of {len(first):,}", value, ""))
        (best,) = [rate for name, rate in rates.items() if name == "slmx, whole answers"]
        for name, rate in rates.items():
            if name not in ours and not name.endswith("streams"):
                label, goal = f"slmx / {name}", 4.0 if "llama-cpp-python" in name else None
                no_story = Figure(label, f"{name} wrote no story", "")
                self.figures.append(at_least(label, best / rate, goal, "{:.1f}x") if rate else no_story)

    def one_stream(self, server: Server) -> None:
        """Compares a client that streams with the model alone."""
        fields = self.fields | {"max_tokens": STREAM_TOKENS, "stream": True, "stream_options": {"include_usage": True}}
        bias = {self.generator.tokenizer.end_of_text: -100.0}
        own = self.fields | {"max_tokens": STREAM_TOKENS, "logit_bias": bias}

        async def streamed() -> float:
            tokens = 0
            async with await Connection.open(server.port) as connection:
                began = perf_counter()
                for number in range(STREAMS):
                    answer = await connection.complete(fields | {"prompt": prompt(number), "seed": number})
                    tokens += answer.tokens
                return tokens / (perf_counter() - began)

        def alone() -> float:
            tokens, began = 0, perf_counter()
            for number in range(STREAMS):
                config, sampling = read_settings(**own, seed=number)  # type: ignore[arg-type]
                for _ in (stream := self.generator.stream(prompt(number), config, sampling)):
                    pass
                tokens += len(stream.completion.ids)
            return tokens / (perf_counter() - began)

        pairs = []
        for _ in range(2 * self.rounds + 1):
            pairs.append((asyncio.run(streamed()), alone()))
        self.samples["one stream"] = pairs
        here, there = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        self.figures.append(
            Figure("one client that streams", f"{here:,.0f} tokens/s; without a server {there:,.0f}", "")
        )
        self.figures.append(at_least("one client that streams / without a server", ratio, 0.9, "{:.2f}x"))

    def memory(self, server: Server, bundle: Path) -> None:
        """Compares the peak memory of the server after all clients with that of `slmx generate`."""
        command = with_peak("generate", prompt(0), "--bundle", str(bundle), "--variant", self.generator.variant)
        alone, peak = peak_of(output_of(command, "slmx generate")), server.memory()["VmHWM"]
        rows = SLOTS * self.generator.pool(1).row_bytes
        self.samples["memory"] = {"slmx generate": alone, "slmx serve": peak, "caches of the slots": rows}
        over = (peak - alone - rows) / 1e6
        value = f"{peak / 1e6:.0f} MB; slmx generate {alone / 1e6:.0f} MB, caches of {SLOTS} slots {rows / 1e6:.0f} MB"
        self.figures.append(Figure("peak memory after these clients", value, ""))
        self.figures.append(at_most("more than slmx generate and the caches", over, 35.0, "{:.0f} MB"))

    def leaving(self, server: Server) -> None:
        """Measures how long the story of a client that leaves goes on, and how late the event loop was."""
        taken = [1000 * asyncio.run(disturbances.seconds_to_stop(server)) for _ in range(LEFT)]
        lag = 1000 * asyncio.run(disturbances.loop_lag(server))
        self.samples["milliseconds to stop"] = taken
        self.figures.append(
            at_most("a client leaves: until its story has stopped, longest", max(taken), 50.0, "{:.0f} ms")
        )
        self.figures.append(Figure("the event loop was late by at most", f"{lag:.0f} ms", ""))

    def disturbed(self, server: Server) -> None:
        """Measures what clients that hurt cost another client, memory and descriptors."""
        cases: dict[str, disturbances.Disturbance] = {
            f"{disturbances.SLOW_CLIENTS} slow clients": disturbances.slow_clients,
            f"{disturbances.HALF_CLOSED} half-closed connections": disturbances.half_closed,
            f"{disturbances.OPENED_EACH_SECOND} connections a second, dropped": disturbances.dropped,
        }
        fields = self.fields | {"max_tokens": STREAM_TOKENS}

        async def rate(connection: Connection) -> float:
            tokens, began = 0, perf_counter()
            for number in range(STREAMS):
                tokens += (await connection.complete(fields | {"prompt": prompt(number), "seed": number})).tokens
            return tokens / (perf_counter() - began)

        async def measure() -> dict[str, list[tuple[float, float]]]:
            pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
            async with await Connection.open(server.port) as connection:
                await rate(connection)
                for _ in range(2 * self.rounds + 1):
                    for name, case in cases.items():
                        quiet = await rate(connection)
                        async with case(server):
                            pairs[name].append((await rate(connection), quiet))
            return pairs

        def state() -> tuple[float, int]:
            return server.memory()["VmRSS"] / 1e6, server.descriptors()

        pairs = asyncio.run(measure())
        self.samples["another client, tokens/s disturbed and quiet"] = pairs
        for name, taken in pairs.items():
            ratio = statistics.median(hurt / quiet for hurt, quiet in taken)
            self.figures.append(at_least(f"another client beside {name}", ratio, 0.9, "{:.2f}x"))
        asyncio.run(disturbances.open_and_drop(server, CONNECTIONS // 10))
        before = state()
        asyncio.run(disturbances.open_and_drop(server, CONNECTIONS))
        after = asyncio.run(_settled(state, before[1]))
        self.samples["opened and dropped"] = {"before": before, "after": after}
        name = f"{CONNECTIONS:,} connections opened and dropped: memory, descriptors"
        value = f"{before[0]:.1f} to {after[0]:.1f} MB, {before[1]} to {after[1]}"
        self.figures.append(Figure(name, value, "flat", after[0] - before[0] < 2.0 and after[1] <= before[1]))


async def _settled(state: Callable[[], tuple[float, int]], descriptors: int) -> tuple[float, int]:
    """Returns a state as soon as no more descriptors are open than before, or after two seconds."""
    for _ in range(20):
        if state()[1] <= descriptors:
            break
        await asyncio.sleep(0.1)
    return state()


def main(
    bundle: Annotated[Path, typer.Option(help="The bundle to serve.")] = SHIPPED_BUNDLES / "nano",
    variant: Annotated[str, typer.Option(help="Its variant.")] = "int8",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which all sides take turns.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of 64 clients in a round.")] = 30.0,
    llama_server: Annotated[Path | None, typer.Option(help="The program llama-server of llama.cpp.")] = None,
    llama_python: Annotated[Path | None, typer.Option(help="A Python with llama-cpp-python[server].")] = None,
    gguf: Annotated[Path | None, typer.Option(help="The same weights in Q8_0, for both.")] = None,
    out: Out = None,
) -> None:
    """Measure, and print each figure with its goal."""
    if gguf is None and (llama_server or llama_python):
        raise UsageError("--llama-server and --llama-python need --gguf FILE, the weights that they serve")
    if gguf is not None and not (llama_server or llama_python):
        raise UsageError("--gguf is for the servers of llama.cpp: add --llama-server, --llama-python or both")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        generator = stack.enter_context(load_generator(bundle, variant))
        study = Study(generator, rounds, seconds)
        context = generator.bundle.config.block_size
        ours = stack.enter_context(running("slmx", slmx_command(bundle, variant), folder))
        peers = []
        if llama_server is not None and gguf is not None:
            for threads in (1, 2):
                command = llama_server_command(llama_server, gguf, SLOTS, context, threads)
                peers.append(stack.enter_context(running(f"llama-server on {threads}", command, folder)))
        if llama_python is not None and gguf is not None:
            command = llama_python_command(llama_python, gguf, context, 2)
            peers.append(stack.enter_context(running("llama-cpp-python on 2", command, folder, streams=False)))
        study.many_clients(ours, peers)
        study.memory(ours, bundle)
        study.one_stream(ours)
        study.leaving(ours)
        study.disturbed(ours)
    typer.echo(table(study.figures))
    settings = {
        "bundle": bundle.name,
        "variant": generator.variant,
        "slots": SLOTS,
        "clients": CLIENTS,
        "rounds": rounds,
        "seconds": seconds,
    }
    packages = {name: version(name) for name in ("starlette", "uvicorn", "httptools")}
    write_results(out, settings, study.samples, study.figures, packages)


if __name__ == "__main__":
    run(main)
