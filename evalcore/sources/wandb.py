"""The checkpoints of a W&B artifact collection: its versions, or the one that an alias is at.

>>> Artifacts("team/llama/checkpoints:nightly").list().found
[Found(name='checkpoints-v12', step=12000, place='wandb://team/llama/checkpoints:v12', checkpoint=…)]

>>> remote("wandb://team/llama/checkpoints:v12").step
12000

The step is ``step`` or ``global_step`` of the version's metadata, else the version's number. Needs the extra
``wandb`` and a login (WANDB_API_KEY).
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evalcore.discovery import Found, Listing, listing_of
from evalcore.errors import CheckpointError, ConfigError
from evalcore.sources.remote import File, Remote, asked, remote_of
from evalcore.tracked import COLLECTION

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


class Artifacts:
    """A ``discovery.Place``: ``entity/project/collection``, with ``:alias`` only what that is at."""

    def __init__(self, collection: str) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigError("an artifact collection needs wandb: pip install 'evalcore[wandb]'") from None
        self.collection, _, self.alias = collection.partition(":")
        self.wandb = wandb
        self._versions: dict[str, Any] = {}

    def list(self) -> Listing:
        with self._asked():
            api = self.wandb.Api()
            newest = api.artifact(f"{self.collection}:{self.alias or 'latest'}")
            versions = [newest] if self.alias else list(api.artifacts(newest.type, self.collection))
        name = self.collection.rpartition("/")[2]
        self._versions = {f"wandb://{self.collection}:{v.version}": v for v in versions}
        urls = self._versions.items()
        listing = listing_of((f"{name}-{v.version}", url, url) for url, v in urls)
        return Listing([self._with_step(f) for f in listing.found], listing.refused)

    def missing(self, found: Sequence[Found]) -> Sequence[str]:
        with self._asked():
            return [self._missing(f.place) for f in found]

    def _with_step(self, found: Found) -> Found:
        version = self._versions[found.place]
        said = [version.metadata.get(key) for key in ("step", "global_step")]
        steps = [step for step in said if isinstance(step, int)] or [int(version.version.removeprefix("v"))]
        return found.model_copy(update={"step": steps[0]})

    def _missing(self, place: str) -> str:
        """What it lacks. W&B lists a version once what was sent of it is there, whole; not whether that was all."""
        version = self._versions[place]
        files = set(version.manifest.entries)
        if "config.json" not in files:
            return f"{place}: no config.json"
        shards = {_SINGLE}
        if _INDEX in files:
            try:
                shards = set(json.loads(self._read(version, _INDEX))["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return f"{place}: unreadable {_INDEX} ({error})"
        gone = sorted(shards - files)
        return f"{place}: {len(gone)} of {len(shards)} weight files missing, first {gone[0]}" if gone else ""

    def _read(self, version: Any, name: str) -> bytes:
        with (
            tempfile.TemporaryDirectory() as folder,
            open(version.get_entry(name).download(folder), "rb") as file,
        ):
            return file.read()

    @contextmanager
    def _asked(self) -> Iterator[None]:
        # A version that is not there is a ValueError; an OSError comes of the network.
        with asked(f"wandb://{self.collection}", self.wandb.Error, ValueError, OSError, final=(ValueError,)):
            yield

    def remote(self) -> Remote:
        """The version that the alias is at now. CheckpointError, as ``evalcore.sources.remote``."""
        found = self.list().found
        if not found:
            raise CheckpointError(f"wandb://{self.collection}:{self.alias}: its name is no folder's")
        version = self._versions[found[0].place]

        def get(name: str, folder: Path) -> None:
            with self._asked():
                # Past wandb's cache, in which it would lie a second time.
                version.get_entry(name).download(str(folder), skip_cache=True)

        with self._asked():
            files = {str(name): _file(entry) for name, entry in version.manifest.entries.items()}
        above = tuple(self.collection.split("/"))
        # One at a time: where a file goes past the cache, wandb notes in a place that all downloads share.
        return remote_of(found[0].place, above, found[0].name, found[0].step, files, get, workers=1)


def remote(url: str) -> Remote:
    """The checkpoint at ``wandb://entity/project/name:version``, or of an alias.

    Raises:
        ConfigError: wandb is not installed.
        CheckpointError: as ``evalcore.sources.remote``.
    """
    collection = url.removeprefix("wandb://")
    if ":" not in collection or not re.fullmatch(COLLECTION, collection):
        raise CheckpointError(f"checkpoint {url}: expected wandb://entity/project/name:version")
    return Artifacts(collection).remote()


def _file(entry: Any) -> File:
    digest = str(entry.digest)
    # Of a reference, a file that lies elsewhere, the digest is whatever that place calls one.
    is_md5 = entry.ref is None and entry.digest_algorithm().name.endswith("MD5")
    hashed = f"md5:{base64.b64decode(digest).hex()}" if is_md5 else ""
    return File(entry.size or 0, hashed, "" if is_md5 else digest)
