from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"

LOAD = """
import sys
import orjson
from airflow import plugins_manager

plugins_manager.ensure_plugins_loaded()
found = {
    "errors": plugins_manager.get_import_errors(),
    "plugins": [plugin["name"] for plugin in plugins_manager.get_plugin_info()],
    "listeners": [plugin["listeners"] for plugin in plugins_manager.get_plugin_info()],
    "modules": sorted(
        name
        for name, module in sys.modules.items()
        if (getattr(module, "__file__", None) or "").startswith(sys.argv[1])
    ),
}
print(orjson.dumps(found).decode())
"""


@pytest.mark.slow
def test_airflow_loads_the_plugin_and_takes_no_other_file_for_one(tmp_path: Path) -> None:
    # A file that .airflowignore does not name would be there under its bare name: job, plan, report, …
    environment = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS)}
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(PLUGINS)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert orjson.loads(run.stdout.splitlines()[-1]) == {
        "errors": {},
        "plugins": ["evalcore"],
        "listeners": [["listeners.job"]],
        # What every process of Airflow pays for: neither operators nor the web application.
        "modules": ["evalcore_plugin", "listeners.job"],
    }
