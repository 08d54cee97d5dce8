"""The diagrams in docs/architecture.md are equal to the imports between rooms.

A room is a folder of modules. One diagram has the rooms of the packages, each with all its folders. Another has the
rooms inside `runtimes.serve`. A diagram leaves out an arrow that follows from others (the transitive reduction).

    python -m tests.test_architecture    prints the arrows that each diagram must hold
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("slm", "export", "runtimes", "benchmarks")
# A room with rooms inside, which have a diagram and a table of their own.
INSIDE = "runtimes.serve"
# These modules start commands, so they import from any room.
FRONT_DOORS = ("cli.py", "__main__.py", "commands.py")

Graph = dict[str, set[str]]


def room_of(module: str, depth: int) -> str:
    """The folder that holds a module or package, with dots. A folder that is deeper belongs to the one above it."""
    parts = module.split(".")[:depth]
    while not (ROOT / Path(*parts)).is_dir():
        parts.pop()
    return ".".join(parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that a source imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def imports_between_rooms(*tops: str) -> Graph:
    """The rooms directly below some packages or rooms, and these themselves, that each of them imports from."""
    depth = tops[0].count(".") + 2
    graph: Graph = {}
    for top in tops:
        for path in sorted((ROOT / top.replace(".", "/")).rglob("*.py")):
            if path.name in FRONT_DOORS or path == ROOT / "runtimes" / "__init__.py":
                continue
            here = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts), depth)
            found = imported(ast.parse(path.read_text("utf-8")))
            there = {room_of(name, depth) for name in found if f"{name}.".startswith(tuple(f"{top}." for top in tops))}
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


def document() -> str:
    """The page with the tables and the diagrams."""
    return (ROOT / "docs" / "architecture.md").read_text("utf-8")


def drawn() -> list[set[tuple[str, str]]]:
    """The arrows of each diagram, in the order of the page."""
    diagrams = re.findall(r"```mermaid\n(.*?)```", document(), re.DOTALL)
    return [set(re.findall(r"^ *([\w.]+) --> ([\w.]+)$", diagram, re.MULTILINE)) for diagram in diagrams]


DIAGRAMS = [PACKAGES, (INSIDE,)]


@pytest.mark.parametrize("tops", DIAGRAMS, ids=" ".join)
def test_no_two_rooms_import_each_other(tops: tuple[str, ...]) -> None:
    assert list(TopologicalSorter(imports_between_rooms(*tops)).static_order())


def test_the_diagrams_show_the_imports_as_they_are() -> None:
    assert drawn() == [arrows(imports_between_rooms(*tops)) for tops in DIAGRAMS]


def test_the_tables_list_every_room() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \|", document(), re.MULTILINE)
    tops = [ROOT / name.replace(".", "/") for name in (*PACKAGES, INSIDE)]
    folders = [path for top in tops for path in top.iterdir() if path.is_dir()]
    modules = [path for path in folders if any(path.glob("*.py")) or any(path.glob("*.ts"))]
    rooms = {".".join(path.relative_to(ROOT).parts) for path in modules}
    assert len(listed) == len(set(listed))
    assert set(listed) == rooms | {"slm", "export", "runtimes"}


def main() -> None:
    """Prints the arrows that each diagram must hold."""
    for tops in DIAGRAMS:
        print(*tops)
        for here, there in sorted(arrows(imports_between_rooms(*tops))):
            print(f"    {here} --> {there}")


if __name__ == "__main__":
    main()
