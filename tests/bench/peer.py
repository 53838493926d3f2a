"""The environment of the packages that are measured against: ``.venv-bench``, made when it is first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).parents[2]
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"


def installed(requirement: str, module: str, console: Console) -> bool:
    """Whether a package is there, put there if it can be; why not is printed."""
    uv = [sys.executable, "-m", "uv"]
    commands = []
    if not BENCH_PYTHON.exists():
        commands.append([*uv, "venv", "-q", "--python", sys.executable, str(BENCH_PYTHON.parents[1])])
    if not _imports(module):
        console.print(f"[dim]installing {requirement} into {BENCH_PYTHON.parents[1].name} …[/]")
        commands.append([*uv, "pip", "install", "-q", "--python", str(BENCH_PYTHON), requirement])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            console.print(f"[yellow]no {requirement} here: {done.stderr.strip().splitlines()[-1]}[/]")
            return False
    return _imports(module)


def _imports(module: str) -> bool:
    if not BENCH_PYTHON.exists():
        return False
    return subprocess.run([str(BENCH_PYTHON), "-c", f"import {module}"], capture_output=True).returncode == 0
