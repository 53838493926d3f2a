"""Checkpoints in an object store, as fsspec reads it.

>>> remote("s3://bucket/llama-8b/step-1000").step
1000

With the credentials of the environment, as the store's library finds them (s3fs, gcsfs, adlfs: whichever the scheme
needs). A Connection of Airflow's is the business of whoever makes the file system, which ``Prefix`` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from evalcore.completeness import MARKER
from evalcore.discovery import Found, Listing, is_finished, listing_of, missing, step_of
from evalcore.errors import CheckpointError, ConfigError
from evalcore.sources.remote import File, Remote, asked, part_of, remote_of
from evalcore.sources.tree import Tree

# By which stores tell a file from the same one at another time; the first there is.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
# What is asked for at once. Left to itself, s3fs holds ten times 50 MB of each file, and makes it as long as it is to
# be before it has anything of it, so that nobody sees how far it is.
_PART = 8 << 20


def remote(url: str) -> Remote:
    """The checkpoint in a folder of a store, read with the environment's credentials.

    Raises:
        ConfigError: fsspec, or the library of this kind of store, is not installed.
        CheckpointError: as ``evalcore.sources.remote``.
    """
    try:
        import fsspec
    except ImportError:
        raise ConfigError("an object store needs fsspec: pip install 'evalcore[hub]'") from None
    address = without_connection(url)
    try:
        fs, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{address}: {error}") from error
    return stored(address, fs, path)


def without_connection(url: str) -> str:
    """The address without the name of Airflow's Connection in it.

    Raises:
        CheckpointError: it has a password in it, or what no store is asked for, as a version: that would be left out.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise CheckpointError(f"{url}: {error}") from error
    user, _, host = parts.netloc.rpartition("@")
    if ":" in user:
        raise CheckpointError("credentials do not belong into a checkpoint's address; use a Connection")
    if parts.query or parts.fragment:
        raise CheckpointError(f"{parts.scheme}://{host}{parts.path}: an address without ? and # is wanted")
    return f"{parts.scheme}://{host}{parts.path}"


class Prefix:
    """A ``discovery.Place``: a folder of a store, with one below it for each checkpoint.

    Args:
        url: what it is called.
        opened: gives the file system of fsspec's and the path in it; raises EvalError.
    """

    def __init__(self, url: str, opened: Callable[[], tuple[Any, str]]) -> None:
        self.url = url.rstrip("/")
        self.opened = opened

    def list(self) -> Listing:
        entries = self._below()
        names = (str(e["name"]).rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory")
        urls = ((name, f"{self.url}/{name}") for name in names if is_finished(name))
        return listing_of((name, url, url) for name, url in urls)

    def missing(self, found: Sequence[Found]) -> Sequence[str]:
        files = _files(self._below())
        beside = {MARKER: files[MARKER].size} if MARKER in files else {}
        return [self._missing(f.name, beside) for f in found]

    def _missing(self, name: str, beside: dict[str, int]) -> str:
        fs, root = self._open()
        top = f"{root}/" if root else ""
        with _asked(self.url):
            there = fs.find(f"{top}{name}", detail=True)
        # The empty objects that stand for folders end with a slash.
        files = {key.removeprefix(top): it["size"] for key, it in there.items() if not key.endswith("/")}

        def read(name: str, start: int, length: int) -> bytes:
            if not length:
                return b""
            with _asked(self.url):
                return bytes(fs.cat_file(f"{top}{name}", start=start, end=start + length))

        # It has of a path what is asked of one. Opened by fsspec, a file is read 50 MB ahead, and each question of it
        # is a request.
        return missing(cast(Path, Tree(self.url, files | beside, read, name)))

    def _below(self) -> Sequence[dict[str, Any]]:
        fs, root = self._open()
        return _listed(self.url, fs, root)

    def _open(self) -> tuple[Any, str]:
        fs, path = self.opened()
        return fs, path.rstrip("/")


def stored(url: str, fs: Any, path: str) -> Remote:
    """The checkpoint in a folder of a file system of fsspec's.

    Raises:
        CheckpointError: as ``evalcore.sources.remote``.
    """
    path = path.rstrip("/")

    def get(name: str, folder: Path) -> None:
        size, part = files[name].size, folder / part_of(name)
        with part.open("ab") as stream:
            for start in range(stream.tell(), size, _PART):
                end = min(start + _PART, size)
                with _asked(url):
                    written = stream.write(fs.cat_file(f"{path}/{name}", start=start, end=end))
                # What came after would not lie where it belongs, and who went on would not see it by the size.
                if written != end - start:
                    break
        part.replace(folder / name)

    def now() -> dict[str, File]:
        return _files(_listed(url, fs, path))

    files = now()
    *above, name = [part for part in path.split("/") if part]
    return remote_of(url, tuple(above) or (name,), name, step_of(name), files, get, workers=8, now=now)


def _listed(url: str, fs: Any, path: str) -> Sequence[dict[str, Any]]:
    """What there is in a folder of a store now, and nothing below it."""
    try:
        with _asked(url):
            # What a store has cached of a listing may be from before.
            fs.invalidate_cache()
            entries = fs.ls(path, detail=True)
    except CheckpointError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise CheckpointError(f"{url}: no such folder or bucket") from error
        raise
    # The empty object that stands for the folder itself, as the consoles of stores make it.
    return [entry for entry in entries if str(entry["name"]).rstrip("/") != path]


def _files(entries: Sequence[dict[str, Any]]) -> dict[str, File]:
    return {
        str(entry["name"]).rpartition("/")[2]: File(entry["size"] or 0, version=_version(entry))
        for entry in entries
        if entry["type"] == "file"
    }


def _version(entry: dict[str, Any]) -> str:
    return next((str(entry[key]) for key in _VERSIONS if entry.get(key)), "")


@contextmanager
def _asked(url: str) -> Iterator[None]:
    # Each store's library has errors of its own.
    with asked(url, Exception, final=(FileNotFoundError, PermissionError, ImportError, ValueError)):
        yield
