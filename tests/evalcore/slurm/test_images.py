from __future__ import annotations

import re

import pytest

from evalcore.slurm.images import enroot_uri, file_name, is_file


@pytest.mark.parametrize(
    ("reference", "uri"),
    [
        ("ubuntu:22.04", "docker://ubuntu:22.04"),
        ("ubuntu", "docker://ubuntu"),
        ("nvidia/cuda:12.4", "docker://nvidia/cuda:12.4"),
        ("nvcr.io/nvidia/nemo:25.01", "docker://nvcr.io#nvidia/nemo:25.01"),
        ("localhost/eval", "docker://localhost#eval"),
        ("registry:5000/eval:1", "docker://registry:5000#eval:1"),
        ("docker.io/library/ubuntu:22.04", "docker://library/ubuntu:22.04"),
        ("index.docker.io/library/ubuntu", "docker://library/ubuntu"),
        ("ghcr.io/a/b@sha256:0123", "docker://ghcr.io#a/b:sha256:0123"),
        ("registry:5000/eval:1@sha256:0123", "docker://registry:5000#eval:sha256:0123"),
        ("nvcr.io#nvidia/nemo:25.01", "docker://nvcr.io#nvidia/nemo:25.01"),
        ("docker://me@nvcr.io#nvidia/nemo", "docker://me@nvcr.io#nvidia/nemo"),
        ("dockerd://eval:latest", "dockerd://eval:latest"),
    ],
)
def test_a_docker_reference_in_enroots_words(reference: str, uri: str) -> None:
    assert enroot_uri(reference) == uri


def test_a_file_name_is_readable_and_follows_from_the_image() -> None:
    name = file_name("nvcr.io/nvidia/nemo:25.01")
    assert re.fullmatch(r"nvcr\.io-nvidia-nemo-25\.01-[0-9a-f]{12}\.sqsh", name)
    assert file_name("docker://nvcr.io#nvidia/nemo:25.01") == name
    # Both read "a-b-1": only the digest tells them apart.
    assert file_name("a/b:1") != file_name("a-b:1")
    assert len(file_name("x" * 500)) < 100


@pytest.mark.parametrize(
    ("image", "expected"),
    [("/images/a.sqsh", True), ("a.sqsh", True), ("/images/a.img", True), ("a/sqsh:1", False)],
)
def test_what_is_a_file_already(image: str, expected: bool) -> None:
    assert is_file(image) is expected
