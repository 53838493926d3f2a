"""Container images on a cluster: a Docker reference, what enroot calls it, and the file it becomes.

>>> enroot_uri("nvcr.io/nvidia/nemo:25.01")
'docker://nvcr.io#nvidia/nemo:25.01'
>>> file_name("nvcr.io/nvidia/nemo:25.01")
'nvcr.io-nvidia-nemo-25.01-9b8ba7469eed.sqsh'
"""

from __future__ import annotations

import hashlib
import re

_HUB = ("docker.io", "index.docker.io")
_NAME_LETTERS = 80


def is_file(image: str) -> bool:
    """Whether an image is a file on the cluster already, and no reference to a registry."""
    return image.startswith("/") or image.endswith(".sqsh")


def enroot_uri(reference: str) -> str:
    """What ``enroot import`` takes: ``docker://[REGISTRY#]IMAGE[:TAG]``; a reference in this form stays.

    Which part is a registry follows Docker's reference grammar (distribution/reference): the first of several
    parts, if it has a dot or a port, or is localhost. Docker Hub is what enroot takes where there is none.
    """
    if "://" in reference:
        return reference
    if "#" in reference:
        return f"docker://{reference}"
    host, slash, rest = reference.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, rest = "", reference
    name, _, digest = rest.partition("@")
    if digest:
        # Docker takes no notice of a tag beside a digest. enroot takes what stands before an @ for a user, and
        # a digest for a tag (the pattern reg_tag in its docker.sh).
        rest = f"{re.sub(':[^:/]*$', '', name)}:{digest}"
    return f"docker://{rest}" if not host or host in _HUB else f"docker://{host}#{rest}"


def file_name(reference: str) -> str:
    """The name of a reference's squashfs file: readable, and the same for every way to write the same image."""
    uri = enroot_uri(reference)
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", uri.partition("://")[2]).strip("-.")[:_NAME_LETTERS]
    return f"{readable}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}.sqsh"
