"""The command that serves stories over HTTP: `slmx serve`."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtimes.bundle.location import BUNDLE_DEFAULT, bundle_notice, find_bundle
from runtimes.bundle.variants import ONNX_VARIANTS
from runtimes.requests.fields import Bounds
from runtimes.serve.protocol.limits import Limits
from runtimes.serve.protocol.log import log_to_stderr, tell
from slm.console.counted import count_stories
from slm.console.errors import SlmxError, UsageError, needs
from slm.console.usage import one_of, panel

if TYPE_CHECKING:
    from runtimes.serve.scheduler.scheduler import Scheduler

KEY_VARIABLE = "SLMX_API_KEY"
MOST_SECONDS = 1_000_000  # far below what timers of the system can hold


_access, _stories = panel("Access"), panel("Limits of stories")
_connections = panel("Limits of requests and connections")


def serve(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BUNDLE...",
            help="Folders, archives, or names that slmx list shows; each is a model of that name.",
            show_default=BUNDLE_DEFAULT,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 and :: are all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    variant: Annotated[
        str | None,
        typer.Option(**one_of("variant", ONNX_VARIANTS, "Variant."), show_default="the one for each bundle's target"),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each model.", show_default="by its size")] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Most stories of a model that are written at the same time.")
    ] = 8,
    queue: Annotated[
        int, typer.Option(min=0, max=100_000, help="Most stories of a model that wait; more get 429.")
    ] = 64,
    log_json: Annotated[bool, typer.Option("--log-json", help="Make every line of stderr a JSON object.")] = False,
    api_key_env: Annotated[
        str | None, _access(metavar="NAME", help="Variable with the key or keys.", show_default=KEY_VARIABLE)
    ] = None,
    allow_host: Annotated[
        list[str] | None, _access(metavar="NAME", help="Another name of this server in the header Host; repeat.")
    ] = None,
    cors: Annotated[list[str] | None, _access(metavar="ORIGIN", help="Let pages of this origin ask; repeat.")] = None,
    trust_proxy: Annotated[
        bool, _access("--trust-proxy", help="Take clients' addresses from X-Forwarded-For of a proxy on this machine.")
    ] = False,
    require_signature: Annotated[
        Path | None,
        _access(metavar="KEY", help="Refuse a bundle that is not signed with this public key; see slmx sign."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        _stories(min=1, help="Most tokens of a story.", show_default="until the story or the context ends"),
    ] = None,
    max_prompt_tokens: Annotated[
        int | None, _stories(min=1, help="Most tokens of a prompt.", show_default="the context")
    ] = None,
    max_prompts: Annotated[int, _stories(min=1, help="Most prompts of a request.")] = Bounds.prompts,
    max_n: Annotated[int, _stories(min=1, help="Most stories for each prompt.")] = Bounds.n,
    max_logprobs: Annotated[
        int, _stories(min=0, help="Most likely tokens that a request may ask for.")
    ] = Bounds.logprobs,
    max_stop: Annotated[int, _stories(min=0, help="Most stop strings of a request.")] = Bounds.stop,
    max_body: Annotated[
        int, _connections(min=1024, max=2**30, help="Most bytes of a request's body.")
    ] = Limits.body_bytes,
    max_headers: Annotated[
        int, _connections(min=1024, max=2**20, help="Most bytes of a request's first line and headers.")
    ] = Limits.header_bytes,
    connections: Annotated[
        int, _connections(min=1, max=100_000, help="Most open connections; more get 503.")
    ] = Limits.connections,
    request_seconds: Annotated[float, _connections(min=0.001, help="Most time of a request.")] = 600.0,
    receive_seconds: Annotated[
        float, _connections(min=0.001, help="Most time in which a request arrives.")
    ] = Limits.receive_seconds,
    write_seconds: Annotated[
        float, _connections(min=0.001, help="Most time in which a client reads a part of an answer.")
    ] = Limits.write_seconds,
    grace: Annotated[float, _connections(min=0.0, help="Seconds in which stories may end after a stop.")] = 30.0,
) -> None:
    """Serve stories to OpenAI clients until Ctrl-C.

    docs/server.md explains how, and how to protect the server.
    """
    with log_to_stderr(log_json):
        with needs("serve"):
            from runtimes.serve.answers.state import ServerState
            from runtimes.serve.app import build_app
            from runtimes.serve.endpoints.page import load_page
            from runtimes.serve.middleware.access import hosts_for, read_keys, read_origins
            from runtimes.serve.middleware.settings import ServeSettings
            from runtimes.serve.server import StoryServer
            from runtimes.serve.start import listen, open_models, raise_descriptor_limit

        seconds_of = {
            "--request-seconds": request_seconds,
            "--receive-seconds": receive_seconds,
            "--write-seconds": write_seconds,
            "--grace": grace,
        }
        for option, seconds in seconds_of.items():
            if not seconds <= MOST_SECONDS:  # also if it is NaN
                raise UsageError(f"{option} {seconds:g}: give a number of seconds up to {MOST_SECONDS:,}")
        variable = api_key_env or KEY_VARIABLE
        value = os.environ.get(variable)
        if api_key_env and value is None:
            raise UsageError(
                f"--api-key-env {api_key_env}: there is no such variable; export {api_key_env}=KEY sets it"
            )
        keys, origins = read_keys(variable, value), read_origins(cors or ())
        listener = listen(host, port)
        if not (listener.is_loopback or keys):
            listener.socket.close()
            raise UsageError(
                f"--host {host}: other machines could ask without a key; set one: "
                f"export {variable}=$(openssl rand -hex 24)"
            )
        settings = ServeSettings(
            hosts_for(host, listener.address, socket.gethostname(), allow_host or ()),
            keys,
            origins,
            Limits(max_body, max_headers, connections, receive_seconds, write_seconds),
        )
        raise_descriptor_limit(connections)
        wanted: Sequence[Path | None] = bundles or (None,)
        paths = [find_bundle(bundle, say=not log_json) for bundle in wanted]
        if log_json:
            for line in filter(None, map(bundle_notice, wanted)):
                tell("bundle", line)
        models = open_models(paths, require_signature, variant, threads, max_batch, queue)
        bounds = Bounds(max_prompt_tokens, max_prompts, max_n, max_logprobs, max_stop, max_tokens)
        state = ServerState(models, bounds, request_seconds, int(time.time()))
        try:
            page = load_page()
            shown = f"{listener.url}/ in a browser" if page else None
        except SlmxError as error:  # the API needs no page
            page, shown = {}, f"none: {error}"
        server = StoryServer(build_app(state, settings, page), grace, trust_proxy)
        reach = "this machine only" if listener.is_loopback else "all machines that reach it"
        protected = f"a key of {variable}" if keys else "no key"
        address = f"{listener.address} port {listener.port}, for {reach}, with {protected}"
        _tell_start(log_json, models, address, shown)
        typer.echo(listener.url)
        server.run([listener.socket])
        tell("stopped", "stopped")


def _tell_start(as_json: bool, models: Mapping[str, Scheduler], address: str, page: str | None) -> None:
    """Writes the models and the address: as one record, or as a table for people."""
    if as_json:
        shown = {name: {"variant": model.generator.variant, "slots": model.slots} for name, model in models.items()}
        tell("started", "started", models=shown, address=address, page=page)
        return
    rows = [
        (name, f"{model.generator.variant}, {count_stories(model.slots)} at the same time")
        for name, model in models.items()
    ]
    rows.append(("address", address))
    if page:
        rows.append(("page", page))
    for name, what in (*rows, ("stop", "Ctrl-C")):
        typer.echo(f"{name:<12} {what}", err=True)
