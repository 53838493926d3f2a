"""Makes a squashfs file of a container image: ``python3 squash.py URI FILE [MARK]``, in a job on a compute node.

Python 3.9 and its standard library alone, like ``supervise``, since it runs on the host. The file comes into
being under another name and is renamed when enroot is done and its bytes are on the disk; one at a time makes
it, and who comes second finds it there. With a MARK, an empty file that is made with it, that one has to be there
too: a new mark makes the file anew. What has the old one open keeps it.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator


def main(uri: str, file: str, mark: str = "") -> int:
    """Return enroot's exit code; 0 if the file is there already."""
    # So that what is half-written is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder, name = os.path.split(file)
    os.makedirs(folder, exist_ok=True)
    with _locked(os.path.join(folder, f".{name}.lock")) as is_alone:
        if os.path.exists(file) and (not mark or os.path.exists(mark)):
            print(f"{file} is there already", flush=True)
            return 0
        if is_alone:
            # Of one that was killed.
            for left in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.*.tmp")):
                os.unlink(left)
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            done = subprocess.run(["enroot", "import", "-o", temporary, uri], stdin=subprocess.DEVNULL)
            if done.returncode:
                print(f"evalcore: error: enroot import {uri}: exit code {done.returncode}", flush=True)
                return done.returncode if done.returncode > 0 else 128 - done.returncode
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.rename(temporary, file)
        except OSError as error:
            print(f"evalcore: error: {error.filename}: {error.strerror}", flush=True)
            return 1
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        if mark:
            open(mark, "wb").close()
    return 0


@contextlib.contextmanager
def _locked(path: str) -> Iterator[bool]:
    """Wait until nobody else makes the file. False where the file system has no locks: then two may, each its own."""
    with open(path, "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
