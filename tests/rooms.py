"""The imports and the sizes of the package's modules, read from their source."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from attrs import frozen

MODULE_LINES_MAX = 350
CLASS_LINES_MAX = 300
FUNCTION_LINES_MAX = 60
CONSTRUCTOR_ARGUMENTS_MAX = 7

Graph = Mapping[str, frozenset[str]]


@frozen
class Room:
    """Modules on one level: they import each other and lower rooms."""

    name: str
    modules: tuple[str, ...]  # a package stands for everything below it


def _of_package(*names: str) -> tuple[str, ...]:
    return tuple(f"kafka_notify.{name}" for name in names)


# From the lowest to the highest. A folder's own sentence is in its `__init__`; docs/design.md has all of them.
ROOMS = (
    Room("base", _of_package("_base", "errors")),
    Room("wire", _of_package("_wire", "codec", "events", "notification", "outcome", "policy", "wire")),
    Room("kafka", _of_package("_kafka")),
    Room("classify", _of_package("_classify", "classify")),
    Room("partition", _of_package("_partition")),
    Room("declarations", _of_package("consumer", "limits", "topology")),
    Room("admin", _of_package("_admin", "admin")),
    Room("producer", _of_package("pauses", "producer")),
    Room("decision", _of_package("_decision")),
    Room("fetch", _of_package("_fetch")),
    Room("settle", _of_package("_settle")),
    Room("send", _of_package("_send")),
    Room("worker", _of_package("_worker", "worker")),
    Room("redrive", _of_package("_redrive", "deadletters")),
    Room("package", ("kafka_notify",)),  # the public names
    Room("adapters", _of_package("_metrics", "log", "otel", "prometheus", "redis")),
    Room("tools", _of_package("__main__", "cli", "demo", "testing")),
)


def modules(root: Path) -> dict[str, Path]:
    """The modules of the package in the folder `root`, by dotted name."""
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


def _named(node: ast.AST, package: str) -> Iterator[tuple[str, str | None]]:
    """The modules that one statement imports, each with the name taken from it."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, None
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            kept = parts[: len(parts) - node.level + 1]
            base = ".".join([*kept, base] if base else kept)
        for alias in node.names:
            yield base, alias.name


@cache
def imports(root: Path) -> Graph:
    """What each module imports from the package.

    Imports inside functions and under TYPE_CHECKING count. Importing a
    module also runs its packages' `__init__`; that is not counted.
    """
    known = modules(root)
    graph: dict[str, frozenset[str]] = {}
    for module, path in known.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for base, name in _named(node, package):
                submodule = f"{base}.{name}"
                if name is not None and submodule in known:
                    targets.add(submodule)
                elif base in known:
                    targets.add(base)
        graph[module] = frozenset(targets - {module})
    return graph


def circles(graph: Graph) -> list[frozenset[str]]:
    """The largest sets of modules that all import each other, directly or not."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in graph[waiting.pop()]:
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    after = {module: reached(module) for module in graph}
    found = {
        frozenset(other for other in after[module] if module in after[other])
        for module in graph
        if module in after[module]
    }
    return sorted(found, key=sorted)


def room_of(module: str, rooms: Sequence[Room]) -> int | None:
    """The level of a module; the longest name that covers it decides."""
    best: tuple[int, int] | None = None
    for level, room in enumerate(rooms):
        for name in room.modules:
            covers = module == name or ("." in name and module.startswith(name + "."))
            if covers and (best is None or len(name) > best[0]):
                best = len(name), level
    return None if best is None else best[1]


def upward(graph: Graph, rooms: Sequence[Room]) -> set[tuple[str, str]]:
    """The imports that lead from a room to a higher one."""
    level = {module: room_of(module, rooms) for module in graph}
    found: set[tuple[str, str]] = set()
    for module, targets in graph.items():
        for target in targets:
            here, there = level[module], level[target]
            if here is not None and there is not None and there > here:
                found.add((module, target))
    return found


@cache
def oversized(root: Path) -> dict[str, int]:
    """The modules, classes and functions above their limit, with their lines."""
    found: dict[str, int] = {}

    def visit(node: ast.AST, where: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = where
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{where}.{child.name}" if ":" in where else f"{where}:{child.name}"
                lines = (child.end_lineno or child.lineno) - child.lineno + 1
                most = CLASS_LINES_MAX if isinstance(child, ast.ClassDef) else FUNCTION_LINES_MAX
                if lines > most:
                    found[name] = max(lines, found.get(name, 0))
            visit(child, name)

    for module, path in modules(root).items():
        source = path.read_text(encoding="utf-8")
        lines = len(source.splitlines())
        if lines > MODULE_LINES_MAX:
            found[module] = lines
        visit(ast.parse(source), module)
    return found


def grown(found: Mapping[str, int], allowed: Mapping[str, int]) -> dict[str, int]:
    """What is above its limit, and not allowed to be as large as it is."""
    return {name: lines for name, lines in found.items() if lines > allowed.get(name, 0)}


@cache
def crowded(root: Path) -> dict[str, int]:
    """The constructors that take more arguments than their limit, with how many. Values (attrs) have no constructor."""
    found: dict[str, int] = {}
    for module, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            for made in node.body:
                if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                    given = made.args
                    count = len([*given.posonlyargs, *given.args, *given.kwonlyargs]) - 1
                    if count > CONSTRUCTOR_ARGUMENTS_MAX:
                        found[f"{module}:{node.name}"] = count
    return found
