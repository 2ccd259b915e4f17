"""The house holds: who may import whom, where the heavy libraries live, and how little an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "clapkit"

LAYERS = {  # layer: its rooms; a file imports from its own room or from a lower layer
    0: [{"errors", "progress", "resources", "storage", "config", "device", "parallel", "version"}],
    1: [{"audio"}],
    2: [{"models"}, {"data"}],
    3: [{"model"}],
    4: [{"evaluation"}, {"search"}],
    5: [{"training"}],
    6: [{"cli", "__init__", "__main__"}],
}
HOMES = {  # library: the only places that may import it; the command line may name pandas for type checkers
    "faiss": ["search/vectors.py"],
    "pyarrow": ["search/"],
    "ray": ["search/engines.py"],
    "lancedb": ["search/export.py"],
    "matplotlib": ["evaluation/plots/"],
    "soundfile": ["audio/io.py"],
    "soxr": ["audio/io.py"],
    "av": ["audio/io.py"],
    "transformers": ["models/"],
    "accelerate": ["training/"],
    "tokenizers": ["models/"],
    "pandas": ["data/", "search/", "evaluation/", "training/"],
    "cyclopts": ["cli/"],
    "rich": ["progress.py"],
    "onnx": ["models/onnx_export.py"],
    "onnxscript": ["models/onnx_export.py"],
    "onnxruntime": ["models/onnx_export.py", "models/onnx_check.py"],
}
HEAVY = ["torch", "pandas", "transformers", "accelerate", "faiss", "matplotlib"]
IMPORT_SECONDS = 0.3
HELP_SECONDS = 0.5
HELP_STARTS = 25
"""Starts of a bare Python that --help may take instead, where the machine is busy."""


def module_name(file: Path) -> str:
    """``clapkit/data/us8k.py`` → ``clapkit.data.us8k``; ``clapkit/data/__init__.py`` → ``clapkit.data``."""
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


class ImportFinder(ast.NodeVisitor):
    """Collects every imported module, also inside functions, but not what only type checkers see."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, f"line {node.lineno}: relative import"
        submodules = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
        self.found |= submodules
        if len(submodules) < len(node.names):
            self.found.add(node.module)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING":
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)


def imports_of(source: str) -> set[str]:
    finder = ImportFinder()
    finder.visit(ast.parse(source))
    return finder.found


IMPORTS = {name: imports_of(file.read_text()) for name, file in FILES.items()}


def place_of(module: str) -> tuple[int, set[str]]:
    """The layer and the room of a module."""
    top = [*module.split("."), "__init__"][1]
    for layer, rooms in LAYERS.items():
        for room in rooms:
            if top in room:
                return layer, room
    pytest.fail(f"{module} has no layer; add it to LAYERS")


def test_imports_are_found_in_functions_but_not_under_type_checking() -> None:
    source = """
import numpy.linalg
from clapkit.data import us8k, Missing
if TYPE_CHECKING:
    import pandas
else:
    import soxr
def late():
    from clapkit.model import load
"""
    assert imports_of(source) == {"numpy.linalg", "clapkit.data.us8k", "clapkit.data", "soxr", "clapkit.model"}


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_from_its_own_room_or_a_lower_layer(module: str) -> None:
    layer, room = place_of(module)
    for imported in IMPORTS[module]:
        if imported.split(".")[0] != "clapkit":
            continue
        assert imported in FILES, f"{module} imports {imported}, which does not exist"
        imported_layer, imported_room = place_of(imported)
        assert imported_room == room or imported_layer < layer, (
            f"{module} (layer {layer}) imports {imported} (layer {imported_layer})"
        )


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: imported & FILES.keys() for module, imported in IMPORTS.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError and names the circle


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_is_imported_in_its_home_only(library: str) -> None:
    users = {
        FILES[module].relative_to(PACKAGE).as_posix()
        for module, imported in IMPORTS.items()
        if library in {name.split(".")[0] for name in imported}
    }
    assert users, f"nothing imports {library}; remove it from HOMES"
    assert {user for user in users if not user.startswith(tuple(HOMES[library]))} == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, clapkit; print([name for name in {HEAVY} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


def fastest_s(n_runs: int, *arguments: str) -> float:
    """Wall time in seconds of the fastest of several runs of this Python."""
    times = []
    for _ in range(n_runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=PROJECT, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def test_importing_the_package_is_quick() -> None:
    assert fastest_s(5, "-c", "import clapkit") - fastest_s(5, "-c", "pass") <= IMPORT_SECONDS


def test_help_is_quick() -> None:
    bare_s = fastest_s(7, "-c", "pass")
    assert fastest_s(7, "-m", "clapkit", "--help") <= max(HELP_SECONDS, HELP_STARTS * bare_s)
