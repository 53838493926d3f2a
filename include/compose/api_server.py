"""Starts Airflow's API server with the password of ``admin`` that docker-compose.yaml takes from .env.

Without a password Airflow's SimpleAuthManager makes one up, and prints it to the container's log.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def main() -> None:
    """Never returns."""
    passwords = {"admin": os.environ.pop("ADMIN_PASSWORD")}
    file = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    file.touch(mode=0o600)
    file.write_text(json.dumps(passwords))
    os.execvp("airflow", ["airflow", "api-server"])


if __name__ == "__main__":
    main()
