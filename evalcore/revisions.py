"""The checkpoints of a Hugging Face repository: its branches and tags that are named after a step.

>>> Revisions("allenai/OLMo-2-0425-1B").list().found[0]
Found(name='step1000-tokens3B', step=1000, place='hf://allenai/OLMo-2-0425-1B@step1000-tokens3B', …)

``main`` has no step and is none of them. Needs the extra ``hub``; a private repository needs HF_TOKEN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import quote

from evalcore.discovery import Found, Listing, listing_of, missing, step_of
from evalcore.errors import CheckpointError, ConfigError
from evalcore.trees import Tree


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
        try:
            yield
        except unreachable as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise CheckpointError(f"hf://{self.repository}: {said[:300]}") from error
