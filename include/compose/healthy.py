"""Whether a part of Airflow is healthy, as Docker asks in each container of docker-compose.yaml.

    python healthy.py scheduler      # metadatabase, scheduler, dag_processor, triggerer

Exit code 0, or 1 and what is wrong. Airflow's own ``airflow jobs check`` takes seconds of a core each time.
"""

from __future__ import annotations

import json
import sys
from urllib.request import ProxyHandler, build_opener

HEALTH = "http://api-server:8080/api/v2/monitor/health"


def main(part: str) -> str | None:
    """What is wrong, or None."""
    # No proxy of the containers' environment knows their names.
    with build_opener(ProxyHandler({})).open(HEALTH, timeout=5) as answer:
        found = json.load(answer)[part]
    return None if found["status"] == "healthy" else f"{part}: {found}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
