"""These tests need what is not among the project's own packages; ``make test-s3`` installs it."""

from __future__ import annotations

from importlib.util import find_spec

# A user of S3 has s3fs, and no server of its API.
collect_ignore_glob = [] if all(map(find_spec, ("s3fs", "moto"))) else ["test_*.py"]
