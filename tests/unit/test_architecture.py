"""The floors of the house: imports point downwards, and heavy packages stay outside."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from types import FunctionType

import pytest

import langchain_safeguard

ROOT = Path(langchain_safeguard.__file__).parent

FLOORS = [
    {"errors", "once", "plans", "tables", "threads"},
    {"taxonomy", "database"},
    {"conversation", "verdict", "embedded", "hushed", "readable"},
    {
        "engines",
        "rewriters",
        "stage",
        "calling",
        "caching",
    },
    {"policy"},
    {"guards", "decision", "folders"},
    {"loading", "audit", "guard_caller", "review"},
    {"assembly"},
    {"escalation"},
    {"holding"},
    {"flow", "training"},
    {"safeguard"},
    {
        "either",
        "refusal",
        "parallel",
        "excision",
    },
    {"streaming", "tools", "documents"},
    {"chat_models"},
    {"runnables", "testing", "middleware", "bulk", "server"},
    {"evaluation"},
    {"cli"},
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


DOTTED = {_dotted(path): path for path in FILES}


def _module(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    """Find the files that a file imports, as dotted names."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [node for node in tree.body if isinstance(node, ast.If)]
    tree.body = [node for node in tree.body if node not in for_types]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found & DOTTED.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    module = _module(path)
    assert module in FLOOR_OF, f"{module} stands on no floor; give it one above"
    for other in {_module(DOTTED[name]) for name in _imported(path)} - {module}:
        assert FLOOR_OF[other] < FLOOR_OF[module], f"{module} imports {other}"


def test_no_files_import_each_other_in_a_circle() -> None:
    # Inside of a package, too. What a package's own file offers is for those outside of it.
    files = {name: path for name, path in DOTTED.items() if path.name != "__init__.py"}
    TopologicalSorter(
        {name: _imported(path) & files.keys() for name, path in files.items()}
    ).prepare()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numpy", "langgraph", "langchain", "langserve", "fastapi")
    code = (
        "import sys, time, langchain_core; begin = time.perf_counter(); import langchain_safeguard;"
        "from langchain_safeguard import InputGuard, OutputGuard, Safeguard, guarded, guard_model;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported_and_is_documented() -> None:
    assert langchain_safeguard.__all__ == sorted(langchain_safeguard.__all__)
    for name in langchain_safeguard.__all__:
        value = getattr(langchain_safeguard, name)
        if isinstance(value, type | FunctionType):
            assert value.__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = langchain_safeguard.no_such_name
