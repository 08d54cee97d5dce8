"""The diagram in docs/architecture.md is equal to the imports between rooms.

A room is a folder of modules. The diagram holds the transitive reduction: it leaves out an arrow that follows from
others.

    python -m tests.test_architecture    prints the arrows that the diagram must hold
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("slm", "export", "runtimes", "benchmarks")
# These modules start commands, so they import from any room.
FRONT_DOORS = ("cli.py", "__main__.py", "commands.py")

Graph = dict[str, set[str]]


def room_of(module: str) -> str:
    """The folder that holds a module or package, with dots."""
    parts = module.split(".")[:2]
    return ".".join(parts) if (ROOT / Path(*parts)).is_dir() else parts[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that a source imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def imports_between_rooms() -> Graph:
    """The rooms that each room imports from."""
    graph: Graph = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name in FRONT_DOORS or path == ROOT / "runtimes" / "__init__.py":
                continue
            here = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
            found = imported(ast.parse(path.read_text("utf-8")))
            there = {room_of(name) for name in found if name.split(".")[0] in PACKAGES}
            graph.setdefault(here, set()).update(there - {here})
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """Every room that a room imports from, directly or through others."""
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        room = waiting.pop()
        if room not in found:
            found.add(room)
            waiting += graph.get(room, ())
    return found


def arrows(graph: Graph) -> set[tuple[str, str]]:
    """The transitive reduction of a graph without cycles."""
    return {
        (here, there)
        for here, rooms in graph.items()
        for there in rooms
        if not any(there in reachable(graph, other) for other in rooms - {there})
    }


def drawn() -> set[tuple[str, str]]:
    """The arrows of the diagram in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    return set(re.findall(r"^ *([\w.]+) --> ([\w.]+)$", diagram, re.MULTILINE))


def test_no_two_rooms_import_each_other() -> None:
    assert list(TopologicalSorter(imports_between_rooms()).static_order())


def test_the_diagram_shows_the_imports_as_they_are() -> None:
    assert drawn() == arrows(imports_between_rooms())


def test_the_table_lists_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed = re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)
    folders = [path for package in PACKAGES for path in (ROOT / package).iterdir() if path.is_dir()]
    rooms = {f"{path.parent.name}.{path.name}" for path in folders if any(path.glob("*.py")) or any(path.glob("*.ts"))}
    assert len(listed) == len(set(listed))
    assert set(listed) == rooms | {"slm", "export", "runtimes"}


def main() -> None:
    """Prints the arrows that the diagram must hold."""
    for here, there in sorted(arrows(imports_between_rooms())):
        print(f"    {here} --> {there}")


if __name__ == "__main__":
    main()
