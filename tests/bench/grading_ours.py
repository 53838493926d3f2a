"""Our math grader on the pairs of a JSONL file; prints one JSON object, as ``grading_peer.py`` does.

python grading_ours.py PAIRS.jsonl WORKERS
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from evalcore.equal import equal


def main() -> None:
    begin = time.perf_counter()
    rows = list(equal(Path(sys.argv[1]), workers=int(sys.argv[2])))
    seconds = time.perf_counter() - begin
    # Its own, and that of its largest worker.
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    verdicts, milliseconds = [row["equal"] for row in rows], [row["ms"] for row in rows]
    print(json.dumps({"verdicts": verdicts, "ms": milliseconds, "seconds": seconds, "peak_mb": peak / 1024}))


if __name__ == "__main__":
    main()
