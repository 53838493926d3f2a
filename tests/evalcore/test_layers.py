"""Arrows run one way: dags → plugins → evalcore, which imports nothing of Airflow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in (ROOT / "evalcore").rglob("*.py")
)
ON_THE_HISTORY = (
    "evalcore.history.",
    "evalcore.alert",
    "evalcore.regression.",
)


BLOCKED = ("airflow", "wandb", "datasets", "vllm", "torch", "sqlalchemy", "alembic", "psycopg", "matplotlib")


@pytest.mark.slow
def test_evalcore_imports_with_airflow_and_every_extra_blocked() -> None:
    code = f"""
import importlib, sys
class Blocked:
    # As if they were not installed; what is None in sys.modules is taken by some for imported.
    def find_spec(name, path=None, target=None):
        if name in {BLOCKED!r}:
            raise ModuleNotFoundError(name + " is blocked")
sys.meta_path.insert(0, Blocked)
for name in {MODULES!r}:
    # What is below evalcore.history is the extra of that name; evalcore.history itself says so.
    if not name.endswith("__main__") and not name.startswith({ON_THE_HISTORY!r}):
        importlib.import_module(name)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(MODULES) > 20


def names_in(*layers: str) -> set[str]:
    """What a layer's modules and folders are imported as."""
    return {
        child.stem
        for layer in layers
        for child in (ROOT / layer).iterdir()
        if child.is_dir() or child.suffix == ".py"
    } - {"__pycache__"}


@pytest.mark.parametrize(
    ("layer", "forbidden"),
    [
        ("evalcore", {"airflow", *names_in("plugins", "dags", "include")}),
        ("plugins", names_in("dags", "include")),
    ],
)
def test_no_layer_imports_one_above_it(layer: str, forbidden: set[str]) -> None:
    found = set()
    for file in (ROOT / layer).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            found |= {f"{file.name}: {n}" for n in names if n.split(".")[0] in forbidden}
    assert {"operators", "evaluate_checkpoint", "demo"} & forbidden
    assert not found
