"""Counts rooms, the imports between them, those that run upward, and lines by package.

    python tools/measure/house.py [ROOT]

A room is a package below ``nas`` or ``gemnet``, or a loose module directly in ``nas``; the loose modules of ``gemnet``
are one room. An import between rooms runs upward where it closes a circle: the room that is imported depends, directly
or not, on the one that imports. The way from a command to the training loop is counted in imports.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import networkx as nx


def imports() -> tuple[nx.DiGraph, Counter[tuple[str, str]]]:
    """Modules and what they import; how many of these imports lead from one room to another."""
    import grimp

    graph = grimp.build_graph("gemnet", "nas", cache_dir=None)
    packages = {module for module in graph.modules if graph.find_children(module)}

    def room(module: str) -> str:
        parts = module.split(".")
        while len(parts) > 1 and ".".join(parts) not in packages:
            if len(parts) == 2 and parts[0] == "nas":
                return ".".join(parts)
            parts.pop()
        return ".".join(parts)

    modules: nx.DiGraph = nx.DiGraph(
        [(a, b) for a in graph.modules for b in graph.find_modules_directly_imported_by(a)]
    )
    return modules, Counter((room(a), room(b)) for a, b in modules.edges if room(a) != room(b))


def circles(between: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Rooms that import one another, directly or not."""
    return [circle for circle in nx.strongly_connected_components(nx.DiGraph(list(between))) if len(circle) > 1]


def main() -> int:
    """Counts and prints."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]).resolve()
    sys.path.insert(0, str(root))
    modules, between = imports()
    closed = circles(between)
    inside = [pair for pair in between if any(set(pair) <= circle for circle in closed)]
    print(f"rooms {len({room for pair in between for room in pair})}")
    print(f"pairs of rooms that import {len(between)}, pairs of modules in different rooms {sum(between.values())}")
    print(f"pairs in circles {len(inside)}: {'; '.join(', '.join(sorted(circle)) for circle in closed) or 'none'}")
    for loop in ("gemnet.training.loop", "nas.training.loop"):
        if loop in modules and nx.has_path(modules, "nas.commands.search", loop):
            path = nx.shortest_path(modules, "nas.commands.search", loop)
            print(f"from the command to the loop {len(path) - 1}: {' -> '.join(path)}")
    for package in ("gemnet", "nas", "tools", "tests"):
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in (root / package).rglob("*.py"))
        print(f"lines of {package} {lines:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
