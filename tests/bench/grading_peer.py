"""math-verify on the pairs of a JSONL file, one after the other, as its README says; prints one JSON object.

    python grading_peer.py PAIRS.jsonl SECONDS

Run by ``grading.py`` in an environment of its own.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time

from math_verify import parse, verify  # type: ignore[import-not-found,unused-ignore]


def main() -> None:
    logging.disable(logging.CRITICAL)
    limit = int(sys.argv[2])
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    parse("$1$")  # its first parse builds the grammar's tables
    verdicts, milliseconds = [], []
    begin = time.perf_counter()
    for row in rows:
        start = time.perf_counter()
        try:
            gold = parse(f"${row['gold']}$", parsing_timeout=limit)
            text = row["pred"] if row.get("kind") == "text" else f"${row['pred']}$"
            verdicts.append(bool(verify(gold, parse(text, parsing_timeout=limit), timeout_seconds=limit)))
        except Exception:  # what it does not catch itself
            verdicts.append(False)
        milliseconds.append((time.perf_counter() - start) * 1000)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"verdicts": verdicts, "ms": milliseconds, "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()
