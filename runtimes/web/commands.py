"""The command that makes web pages: `slmx web`."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from runtimes.bundle.location import BUNDLE_DEFAULT, find_bundle
from runtimes.web.installed import NOT_INSTALLED, find_page_folder
from runtimes.web.variants import WEB_VARIANTS
from slm.console.errors import SlmxError, UsageError, needs
from slm.console.notice import log_line
from slm.console.terminal import need_stdout
from slm.console.usage import one_of
from slm.console.word_wrap import folded

DEFAULT_OUT = Path("site")


def web(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="BUNDLE...",
            help="Folders, archives, or names that slmx list shows; several give a menu.",
            show_default=BUNDLE_DEFAULT,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the site.", show_default="site, or with --serve a temporary one")
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            **one_of("variant for browsers", WEB_VARIANTS, "Variant."), show_default="the first that is there"
        ),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve the site on this machine until Ctrl-C.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port, with --serve.", show_default="the first free one from 8000"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the site in --out.")] = False,
) -> None:
    """Make a web page that writes stories in the browser.

    It also works offline. docs/browser.md describes how to host it.
    """
    if port is not None and not serve:
        raise UsageError("--port needs --serve")
    try:
        with needs("web"):
            from runtimes.web.models import choose_models
            from runtimes.web.server import SiteServer
            from runtimes.web.server import serve as run_server
            from runtimes.web.site import write_site
    except SlmxError as error:
        if find_page_folder() is None:
            raise SlmxError(f"{error}; and {NOT_INSTALLED}") from error
        raise

    need_stdout()
    wanted: Sequence[Path | None] = bundles or (None,)
    models = choose_models([find_bundle(bundle) for bundle in wanted], variant)
    with ExitStack() as stack:
        if serve and out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slmx-web-"))) / DEFAULT_OUT
        else:
            folder = out or DEFAULT_OUT
        server = stack.enter_context(SiteServer(folder, port)) if serve else None
        size = write_site(models, folder, force, log_line)
        if out is not None or not serve:
            typer.echo(str(folder))
        for model in models:
            parameters = f"{model.bundle.config.parameters / 1e6:,.1f} million parameters"
            typer.echo(f"{model.name:<12} {model.variant:<5} {model.bytes / 1e6:>8,.1f} MB  {parameters}")
        visit = (
            f"a first visit loads {size.transfer / 1e6:,.1f} MB if the host sends packed files, "
            f"and the browser keeps {size.unpacked / 1e6:,.1f} MB"
        )
        typer.echo(folded(visit, 2))
        if server is None:
            log_line(
                f"now: python3 -m http.server --directory {shlex.quote(str(folder))} 8000  # then open http://localhost:8000/"
            )
        else:
            typer.echo(server.url)
            run_server(server, log_line)
