"""The checkpoints of a Hugging Face repository: its branches and tags that are named after a step.

>>> Revisions("allenai/OLMo-2-0425-1B").list().found[0]
Found(name='step1000-tokens3B', step=1000, place='hf://allenai/OLMo-2-0425-1B@step1000-tokens3B', …)
>>> remote("hf://allenai/OLMo-2-0425-1B@step1000-tokens3B").step
1000

``main`` has no step and is none of them. Needs the extra ``hub``; a private repository needs HF_TOKEN.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import quote

from evalcore.discovery import Found, Listing, listing_of, missing, step_of
from evalcore.errors import CheckpointError, ConfigError
from evalcore.sources.remote import File, Remote, asked, remote_of
from evalcore.sources.tree import Tree
from evalcore.tracked import REPOSITORY


class Revisions:
    """A ``discovery.Place``: a repository."""

    def __init__(self, repository: str) -> None:
        try:
            from huggingface_hub import HfApi
        except ImportError:
            raise ConfigError(
                "a repository of the hub needs huggingface_hub: pip install 'evalcore[hub]'"
            ) from None
        self.repository = repository
        self.api = HfApi()

    def list(self) -> Listing:
        with self._asked():
            refs = self.api.list_repo_refs(self.repository)
        named = {ref.name for ref in (*refs.branches, *refs.tags) if step_of(ref.name) is not None}
        urls = ((name, f"hf://{self.repository}@{name}") for name in sorted(named))
        return listing_of((name, url, url) for name, url in urls)

    def missing(self, found: Sequence[Found]) -> Sequence[str]:
        reasons = []
        for checkpoint in found:
            with self._asked():
                # It has of a path what is asked of one.
                reasons.append(missing(cast(Path, self._tree(checkpoint))))
        return reasons

    def _tree(self, checkpoint: Found) -> Tree:
        entries = self.api.list_repo_tree(self.repository, recursive=True, revision=checkpoint.name)
        # Folders have no size.
        files = {entry.path: entry.size for entry in entries if hasattr(entry, "size")}
        return Tree(checkpoint.place, files, lambda *part: self._read(checkpoint.name, *part))

    def _read(self, revision: str, name: str, start: int, length: int) -> bytes:
        from huggingface_hub import get_session, get_token, hf_raise_for_status

        if not length:
            return b""
        url = f"{self.api.endpoint}/{self.repository}/resolve/{quote(revision, safe='')}/{quote(name)}"
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        if token := get_token():
            headers["Authorization"] = f"Bearer {token}"
        with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
            hf_raise_for_status(response)
            if start and response.status_code != 206:
                raise CheckpointError(f"{url}: the server does not send parts of files")
            content = bytearray()
            for block in response.iter_bytes(1 << 20):
                content += block
                if len(content) >= length:
                    break  # a server that knows no ranges sends all of a shard
        return bytes(content[:length])

    @contextmanager
    def _asked(self) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError

        # These are OSError and the error of whichever HTTP library this version of the client uses.
        unreachable = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
        with asked(f"hf://{self.repository}", *unreachable):
            yield

    def remote(self, revision: str) -> Remote:
        """The checkpoint of a revision, at the commit that it is at now. CheckpointError, as ``sources.remote``."""
        from huggingface_hub.hf_api import RepoFile

        with self._asked():
            commit = str(self.api.model_info(self.repository, revision=revision).sha)
            entries = list(self.api.list_repo_tree(self.repository, revision=commit))

        def get(name: str, folder: Path) -> None:
            with self._asked():
                self.api.hf_hub_download(self.repository, name, revision=commit, local_dir=folder)

        files = {}
        for entry in entries:
            if isinstance(entry, RepoFile):
                known = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
                files[entry.path] = File(entry.size, known)
        url = f"hf://{self.repository}@{revision}"
        return remote_of(url, tuple(self.repository.split("/")), revision, step_of(revision), files, get)


def remote(url: str) -> Remote:
    """The checkpoint at ``hf://org/repo@revision``; without a revision, of ``main``.

    Raises:
        ConfigError: the client is not installed.
        CheckpointError: as ``evalcore.sources.remote``.
    """
    found = re.fullmatch(rf"hf://({REPOSITORY})(?:@([^@]+))?", url)
    if not found:
        raise CheckpointError(f"checkpoint {url}: expected hf://organisation/repository@revision")
    # Both are read by the client when it is imported; it reports each load by a request of its own otherwise.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return Revisions(found[1]).remote(found[2] or "main")
