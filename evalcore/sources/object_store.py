"""A checkpoint in an object store, as fsspec reads it.

>>> remote("s3://bucket/llama-8b/step-1000").step
1000

With the credentials of the environment, as the store's library finds them (s3fs, gcsfs, adlfs: whichever the scheme
needs). A Connection of Airflow's is the business of whoever makes the file system.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evalcore.discovery import step_of
from evalcore.errors import CheckpointError, ConfigError
from evalcore.sources.remote import File, Remote, asked, remote_of

# By which stores tell a file from the same one at another time; the first there is.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")


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
    """The address without the name of Airflow's Connection in it. CheckpointError if it has a password in it."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if ":" in user:
        raise CheckpointError("credentials do not belong into a checkpoint's address; use a Connection")
    return f"{parts.scheme}://{host}{parts.path}"


def stored(url: str, fs: Any, path: str) -> Remote:
    """The checkpoint in a folder of a file system of fsspec's.

    Raises:
        CheckpointError: as ``evalcore.sources.remote``.
    """
    path = path.rstrip("/")

    def get(name: str, folder: Path) -> None:
        part = folder / f".{name}.part"
        # Each store's library has errors of its own.
        with asked(url, Exception, final=(FileNotFoundError, PermissionError)):
            fs.get_file(f"{path}/{name}", str(part))
        part.replace(folder / name)

    with asked(url, Exception, final=(FileNotFoundError, PermissionError, ImportError, ValueError)):
        # What a store has cached of a listing may be from before.
        fs.invalidate_cache()
        listed = fs.ls(path, detail=True)
    files = {
        str(entry["name"]).rstrip("/").rpartition("/")[2]: File(entry["size"] or 0, version=_version(entry))
        for entry in listed
        if entry["type"] == "file"
    }
    *above, name = [part for part in path.split("/") if part]
    return remote_of(url, tuple(above) or (name,), name, step_of(name), files, get)


def _version(entry: dict[str, Any]) -> str:
    return next((str(entry[key]) for key in _VERSIONS if entry.get(key)), "")
