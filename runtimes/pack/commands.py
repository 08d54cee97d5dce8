"""The commands for one file to carry: `slmx pack`, `slmx unpack`, `slmx keygen` and `slmx sign`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from runtimes.bundle.location import BUNDLE_HELP, find_bundle
from slm.console.counted import counted
from slm.console.errors import UsageError, needs
from slm.console.notice import log_line


def pack(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help=BUNDLE_HELP)],
    out: Annotated[Path | None, typer.Option(help="The file.", show_default="NAME.slmx in the current folder")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another packed bundle in --out.")] = False,
) -> None:
    """Write a bundle as one file to carry.

    Every command takes this file as it takes the folder. The same bundle gives the same bytes.
    A signature of the bundle is written beside it, as FILE.sig.
    """
    from runtimes.bundle.store import Bundle
    from runtimes.pack.packing import default_archive, pack_bundle

    source = find_bundle(bundle)
    target = out or default_archive(source)
    opened = Bundle.open(source)
    size = pack_bundle(opened, target, force, log_line)
    typer.echo(str(target))
    typer.echo(
        f"{counted(len(opened.manifest.files) + 1, 'file')}, {size:,} bytes, manifest SHA-256 {opened.manifest_sha256}"
    )
    log_line(f"now: slmx generate --bundle {shlex.quote(str(target))}")


def unpack(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A file that slmx pack made.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder.", show_default="the file's name without its ending")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle in --out.")] = False,
) -> None:
    """Write the folder of a packed bundle again.

    Every file in it is checked first. A signature FILE.sig beside it becomes model.sig in the folder.
    """
    from runtimes.bundle.store import Bundle
    from runtimes.pack.packing import signature_beside, unpack_bundle

    opened = Bundle.open(archive)
    folder = out or Path(archive.stem)
    unpack_bundle(opened, folder, force, signature_beside(opened, log_line))
    typer.echo(str(folder))


def keygen(
    out: Annotated[Path, typer.Option(help="Name of the two files, without their endings.")] = Path("slmx"),
) -> None:
    """Make a pair of keys, to sign and to check signatures.

    NAME.key signs, and nobody else may have it. NAME.pub checks signatures; if only it is missing, it is made again.
    If the environment variable SLMX_KEY_PASSPHRASE is set, NAME.key is encrypted with it. It may not be empty.
    """
    if out.name in ("", ".."):
        raise UsageError(f"--out {out}: give a name, such as --out mine")
    with needs("sign"):
        from runtimes.pack.keys import make_keys

    for path in make_keys(out, log_line):
        typer.echo(str(path))


def sign(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help=BUNDLE_HELP)],
    key: Annotated[Path, typer.Option(help="The private key: NAME.key of slmx keygen, or another PEM of P-256.")],
) -> None:
    """Sign a bundle, after a check of every file in it.

    The format is that of sigstore's model-signing.
    The signature is written to model.sig in a folder, and to FILE.sig beside a packed bundle.
    """
    with needs("sign"):
        from runtimes.bundle.store import Bundle
        from runtimes.pack.signature import sign_bundle

    typer.echo(str(sign_bundle(Bundle.open(find_bundle(bundle)), key, log_line)))
