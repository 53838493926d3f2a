"""What a profile's keys take; how a file of profiles is read is in test_profiles.py."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from evalcore.errors import ConfigError
from evalcore.executors import DockerProfile, walltime_seconds


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shm_size", "16gb", "expected a whole number and b, k, m or g: 16g"),
        ("memory", "1.5g", "expected a whole number and b, k, m or g: 16g"),
        ("cpus", 0, "should be greater than 0"),
        ("gpus", -2, "should be greater than or equal to -1"),
        ("user", "$USER", "expected a name of letters"),
        ("container_image", "a b", "expected an image"),
        ("container_image", "--privileged", "expected an image"),
        ("mounts", ["data:/data"], "expected /there:/here"),
    ],
)
def test_what_docker_does_not_take(key: str, value: object, message: str) -> None:
    keys = {"name": "d", "executor": "docker", "container_image": "evalcore:1", key: value}
    with pytest.raises(ValidationError, match=message) as error:
        DockerProfile.model_validate(keys)
    assert error.value.errors()[0]["loc"][0] == key


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("30:15", 1815),
        ("4:00:00", 14400),
        ("04:00:01", 14401),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("1-12:00:05", 129605),
        ("0-1", 3600),
        (" 90:00 ", 5400),
    ],
)
def test_walltime_in_slurms_forms(text: str, seconds: int) -> None:
    assert walltime_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "4h", "1:2:3:4", "1-", "1-1:1:1:1", "-5", "UNLIMITED", "0", "0:0", "٤:00"]
)
def test_no_walltime(text: str) -> None:
    with pytest.raises(ConfigError, match="days-hours:minutes:seconds"):
        walltime_seconds(text)
