"""Cluster profiles: what ``env.toml`` may say, who wins, and what a user is told when something is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from evalcore import cli
from evalcore.errors import ConfigError
from evalcore.profiles import (
    DockerProfile,
    LocalProfile,
    Profile,
    Profiles,
    SlurmProfile,
    load_profiles,
)

ROOT = Path(__file__).parents[2]
Read = Callable[[str], Profiles]
SLURM = 'executor = "slurm"\nremote_job_dir = "/lustre/me"\n'
DOCKER = 'executor = "docker"\ncontainer_image = "evalcore:1"\n'


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_load(text: str) -> Profiles:
        file = tmp_path / "env.toml"
        file.write_text(text, encoding="utf-8")
        return load_profiles(file)

    return write_and_load


def slurm(read: Read, text: str) -> SlurmProfile:
    profile = read(f"[c]\n{SLURM}{text}").get("c")
    assert isinstance(profile, SlurmProfile)
    return profile


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as error:
        act()
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_file_as_nemotron_has_it(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "me")
    monkeypatch.delenv("SLURM_HOST", raising=False)
    profiles = read(
        """
[wandb]
project = "nemotron"
entity = "${oc.env:NO_SUCH_ENTITY,my-team}"
mode = ""
tags = ["nightly"]
name = "r"
run_name = "r"
notes = "n"

[artifacts]
backend = "file"

[cache]
dir = "/cache"

[cli]
theme = "dark"

[slurm_base]
executor = "slurm"
tunnel = "ssh"
host = "${oc.env:SLURM_HOST,login.example.com}"
user = "${oc.env:USER}"
account = "my-account"
partition = "batch"
run_partition = "interactive"
container_image = "nvcr.io/nvidia/nemo:25.01"
remote_job_dir = "/lustre/${oc.env:USER}/nemo-run"
mounts = ["/lustre:/lustre"]
ntasks_per_node = 8
gpus_per_node = 8
time = "02:00:00"
mem = "0"
exclusive = true
startup_commands = ["source /opt/env.sh"]

[slurm_base.env_vars]
HF_HOME = "${oc.env:NO_HF_HOME,/lustre/${oc.env:USER}/hf}"
HF_TOKEN = "${oc.env:HF_TOKEN,''}"

[eval]
extends = "slurm_base"
nodes = 2
mounts = ["/data:/data:ro"]
env_vars = {RAY_DEDUP_LOGS = "0"}

[lepton]
executor = "lepton"
node_group = "gpus"
"""
    )
    assert profiles.names == ("local", "slurm_base", "eval", "lepton")
    assert profiles.wandb.model_dump(exclude_unset=True) == {"project": "nemotron", "entity": "my-team"}
    profile = profiles.get("eval")
    assert profile == SlurmProfile(
        name="eval",
        executor="slurm",
        tunnel="ssh",
        host="login.example.com",
        user="me",
        account="my-account",
        partition="batch",
        container_image="nvcr.io/nvidia/nemo:25.01",
        remote_job_dir="/lustre/me/nemo-run",
        results="/lustre/me/nemo-run/results",
        mounts=("/data:/data:ro",),
        gpus_per_node=8,
        nodes=2,
        time="02:00:00",
        mem="0",
        exclusive=True,
        env={"HF_HOME": "/lustre/me/hf", "HF_TOKEN": "${oc.env:HF_TOKEN,''}", "RAY_DEDUP_LOGS": "0"},
    )
    assert profiles.unused("eval") == ["ntasks_per_node", "run_partition", "startup_commands"]
    assert TypeAdapter(Profile).validate_json(profile.model_dump_json()) == profile
    message = refusal(lambda: profiles.get("lepton"))
    assert "lepton.executor: 'lepton' is none of evalcore's; valid: docker, local, slurm" in message


def test_without_a_file_there_is_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EVALCORE_ENV_TOML", raising=False)
    monkeypatch.chdir(tmp_path)
    profiles = load_profiles()
    assert (profiles.names, profiles.get("local")) == (("local",), LocalProfile(name="local"))
    assert profiles.wandb.model_fields_set == set()
    assert "EVALCORE_ENV_TOML" in refusal(lambda: profiles.get("cluster"))


def test_which_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.toml" for name in ("env", "named", "given")}
    for name, file in files.items():
        file.write_text(f"[{name}]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALCORE_ENV_TOML", "")
    assert load_profiles().names == ("local", "env")
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(files["named"]))
    assert load_profiles().names == ("local", "named")
    assert load_profiles(files["given"]).names == ("local", "given")
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(tmp_path / "gone.toml"))
    assert "gone.toml: no such file" in refusal(load_profiles)


def test_a_file_of_windows(read: Read) -> None:
    assert read("\ufeff[c]\r\n" + SLURM.replace("\n", "\r\n")).get("c").executor == "slurm"


def test_a_file_may_say_what_local_is(read: Read) -> None:
    profiles = read('[local]\nnproc_per_node = 8\nenv = {A = "1"}\n')
    assert (profiles.names, profiles.get("local").env) == (("local",), {"A": "1"})


def test_docker(read: Read) -> None:
    profile = read(
        '[d]\nexecutor = "docker"\ncontainer = "evalcore:1"\nnproc_per_node = 2\nshm_size = "16g"\nmemory = "64g"\n'
        'cpus = 0.5\nuser = "1000:1000"\nmounts = ["/data:/data"]\ndocker_conn_id = "docker_gpu"\n'
    ).get("d")
    assert profile == DockerProfile(
        name="d",
        executor="docker",
        container_image="evalcore:1",
        gpus=2,
        shm_size="16g",
        memory="64g",
        cpus=0.5,
        user="1000:1000",
        mounts=("/data:/data",),
        docker_conn_id="docker_gpu",
    )


@pytest.mark.parametrize(("text", "gpus"), [("gpus = -1", -1), ("gpus_per_node = 8", 8), ("", 0)])
def test_gpus_of_docker(read: Read, text: str, gpus: int) -> None:
    profile = read(f"[d]\n{DOCKER}{text}\n").get("d")
    assert isinstance(profile, DockerProfile)
    assert profile.gpus == gpus


def test_defaults_of_slurm(read: Read) -> None:
    profile = slurm(read, "")
    assert (profile.tunnel, profile.python, profile.poll_interval) == ("local", "python3", 20)
    assert (profile.time, profile.results) == ("4:00:00", "/lustre/me/results")
    ending = SlurmProfile(name="c", executor="slurm", remote_job_dir="/lustre/me/")
    assert ending.results == "/lustre/me/results"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("time = 30", "time", "30"),
        ('time = " 4:00:00\\n"', "time", "4:00:00"),
        ("mem = 0", "mem", "0"),
        ("env = {OMP_NUM_THREADS = 4}", "env", {"OMP_NUM_THREADS": "4"}),
        ('env_vars = ["A=1", "B=x=y"]', "env", {"A": "1", "B": "x=y"}),
        ('env_vars = {A = "1"}\nenv = {B = "2"}', "env", {"A": "1", "B": "2"}),
        ('mounts = ["/a:/b:ro", "/c:/d", "/e"]', "mounts", ("/a:/b:ro", "/c:/d", "/e")),
        ('mounts = ["${remote_job_dir}:/w"]', "mounts", ("/lustre/me:/w",)),
        ('container_image = "nvcr.io#nvidia/nemo:dev"', "container_image", "nvcr.io#nvidia/nemo:dev"),
        ('container_image = "a:1"\ncontainer = "b:1"', "container_image", "a:1"),
        ('partition = "a,b"', "partition", "a,b"),
        ('batch_partition = "later"\npartition = "now"', "partition", "later"),
        ('gres = "gpu:a100:4"', "gres", "gpu:a100:4"),
        ('constraint = "a100|h100&ib"', "constraint", "a100|h100&ib"),
        ('extra_sbatch = ["--nice=-5", "--hold"]', "extra_sbatch", ("--nice=-5", "--hold")),
        (
            'extra_sbatch = ["--gpus=4", "--time-min=10", "--mem-per-cpu=2G", "--wait-all-nodes=1"]',
            "extra_sbatch",
            ("--gpus=4", "--time-min=10", "--mem-per-cpu=2G", "--wait-all-nodes=1"),
        ),
        ('account = ""', "account", None),
        ("port = 65535", "port", 65535),
    ],
)
def test_what_slurm_takes(read: Read, text: str, key: str, value: Any) -> None:
    assert getattr(slurm(read, text), key) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes = 0", "c.nodes: Input should be greater than or equal to 1"),
        ('nodes = "many"', "c.nodes: Input should be a valid integer"),
        ('time = "4 hours"', "c.time: '4 hours' is no time limit; write minutes"),
        ("time = 04:00:00", 'c.time: write it in quotes, as in time = "04:00:00"'),
        ("port = 65536", "c.port: Input should be less than or equal to 65535"),
        ("port = 0", "c.port: Input should be greater than or equal to 1"),
        ('container_image = "a b"', "c.container_image: expected an image"),
        ('mem = "64GB"', "c.mem: expected a whole number and K, M, G or T: 64G"),
        ('mem = "lots"', "c.mem: expected a whole number and K, M, G or T: 64G"),
        ('remote_job_dir = "work"', "c.remote_job_dir: expected an absolute path"),
        ('results = "/a b"', "c.results: expected an absolute path"),
        ('mounts = ["/a:/b", "data:/data"]', "c.mounts.1: expected /there:/here"),
        ('mounts = ["/a:/b,/c:/d"]', "c.mounts.0: expected /there:/here"),
        ('mounts = "/a:/b"', "c.mounts: Input should be a valid tuple"),
        ('mounts = ["${auto_mount:git}"]', "c.mounts: Unsupported interpolation type auto_mount"),
        ('host = "${oc.env:NO_SUCH_HOST}"', "c.host: Environment variable 'NO_SUCH_HOST' not found"),
        ('host = "${nowhere"', "c.host: "),
        ('host = "${user}"\nuser = "${host}"', "c.host: "),
        ('tunnel = "ssh"', ': c: tunnel = "ssh" needs a host or an ssh_conn_id'),
        ('host = "login"', 'say tunnel = "ssh" to submit on the host'),
        ('ssh_conn_id = "login"', 'say tunnel = "ssh" to submit on the host'),
        ('tunnel = "vpn"', "c.tunnel: Input should be 'ssh' or 'local'"),
        ("poll_interval = 0", "c.poll_interval: Input should be greater than or equal to 1"),
        ('extra_sbatch = ["-N 4"]', "c.extra_sbatch.0: expected --option"),
        ('extra_sbatch = ["--nice\\n#SBATCH --uid=0"]', "c.extra_sbatch.0: expected --option"),
        (
            'extra_sbatch = ["--export=ALL,A=1"]',
            "c.extra_sbatch.0: --export cannot be set here; use the key env",
        ),
        (
            'extra_sbatch = ["--gpus-per-node=a100:4"]',
            "--gpus-per-node cannot be set here; use the key gpus_per_node",
        ),
        ('extra_sbatch = ["--array=1-4"]', "use the argument array of SlurmSubmitOperator"),
        ('extra_sbatch = ["--clusters=other"]', "use a profile for each cluster"),
        ('extra_sbatch = ["--container-image=a:1"]', "use the keys container_image and mounts"),
        (
            'extra_sbatch = ["--nice", "--job-name=mine"]',
            "c.extra_sbatch.1: --job-name cannot be set: jobs are found",
        ),
        ('extra_sbatch = ["--outp=/tmp/log"]', "c.extra_sbatch.0: --output cannot be set"),
        ('extra_sbatch = ["--wait"]', "c.extra_sbatch.0: --wait cannot be set"),
        ('extra_sbatch = ["--test-only"]', "c.extra_sbatch.0: --test-only cannot be set"),
        ('extra_sbatch = ["--requeue"]', "c.extra_sbatch.0: --requeue cannot be set"),
        ('env = {"A-B" = "1"}', "c.env: 'A-B' is no name of an environment variable"),
        ('env = {A = "1\\n2"}', "c.env: A has a newline"),
        ("env = {A = true}", "c.env.A: Input should be a valid string"),
        ('env = "A=1"', "c.env: expected a table of names and values"),
        ('env_vars = ["A"]', "c.env_vars: expected a table of names and values"),
    ],
)
def test_what_slurm_does_not_take(read: Read, text: str, message: str) -> None:
    lines = [line for line in SLURM.splitlines() if line.split()[0] != text.split()[0]]
    profiles = read("\n".join(["[c]", *lines, text]))
    said = refusal(lambda: profiles.get("c"))
    assert said.startswith(f"{profiles.file}: c")
    assert message in said


@pytest.mark.parametrize(
    "key", ["host", "user", "account", "partition", "qos", "gres", "constraint", "python"]
)
@pytest.mark.parametrize(
    "value", ["a b", "a\nb", "a'b", 'a"b', "-oProxyCommand=x", "a`b`", "$(a)", "a\\b", "a#b"]
)
def test_values_are_one_word(read: Read, key: str, value: str) -> None:
    profiles = read(f'[c]\n{SLURM}tunnel = "ssh"\nssh_conn_id = "x"\n{key} = {json.dumps(value)}\n')
    assert f"c.{key}: expected" in refusal(lambda: profiles.get("c"))


def test_a_child_wins_and_env_is_merged(read: Read) -> None:
    profiles = read(
        f'[a]\n{SLURM}qos = "low"\nmounts = ["/a:/a"]\ncontainer_image = "i"\nenv = {{A = "1", B = "1"}}\n'
        '[b]\nextends = "a"\nenv = {B = "2", C = "2"}\n'
        '[c]\nextends = "b"\nqos = "high"\nmounts = ["/c:/c"]\ncontainer_image = ""\nenv = {C = "3"}\n'
    )
    child = profiles.get("c")
    assert isinstance(child, SlurmProfile)
    assert child.env == {"A": "1", "B": "2", "C": "3"}
    assert (child.name, child.qos, child.mounts, child.container_image) == ("c", "high", ("/c:/c",), None)
    base = profiles.get("a")
    assert isinstance(base, SlurmProfile)
    assert (base.qos, base.env) == ("low", {"A": "1", "B": "1"})


def test_the_nearest_executor_counts(read: Read) -> None:
    profiles = read(
        '[a]\nexecutor = "docker"\ncontainer_image = "i"\n'
        '[b]\nextends = "a"\nexecutor = "slurm"\nremote_job_dir = "/w"\n[c]\nextends = "b"\n'
    )
    assert [profiles.get(name).executor for name in "abc"] == ["docker", "slurm", "slurm"]


def test_a_base_need_not_be_complete_and_is_blamed_for_what_it_says(read: Read) -> None:
    profiles = read('[a]\nexecutor = "slurm"\nnodes = "x"\n[b]\nextends = "a"\nremote_job_dir = "/w"\n')
    assert f"{profiles.file}: a.nodes: " in refusal(lambda: profiles.get("b"))
    profiles = read('[a]\nexecutor = "slurm"\n[b]\nextends = "a"\nremote_job_dir = "/w"\n')
    assert profiles.get("b").name == "b"
    assert "a.remote_job_dir: Field required" in refusal(lambda: profiles.get("a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\nextends = "b"\n[b]\nextends = "a"\n', "b.extends: goes in a circle: a → b → a"),
        ('[a]\nextends = "a"\n', "a.extends: goes in a circle: a → a"),
        (
            '[cluster]\n[a]\nextends = "clustr"\n',
            "unknown profile 'clustr'; did you mean 'cluster'? valid: local",
        ),
        ('[wandb]\n[a]\nextends = "wandb"\n', "a.extends: unknown profile 'wandb'"),
        ('[a]\nextends = ["b", "c"]\n', "a.extends: expected the name of one profile"),
        ('[a]\nhost = "x\n', "at line 2"),
        ('host = "x"\n', "host: belongs into a section"),
        ('["a b"]\n', "a profile's name has letters"),
        (
            '[wandb]\nprojct = "x"\n',
            "wandb.projct: unknown key; did you mean 'project'? valid: entity, mode, project",
        ),
        ('[wandb]\nmode = "on"\n', "wandb.mode: Input should be 'online', 'offline' or 'disabled'"),
        ('[wandb]\napi_key = "abc"\n', "wandb.api_key: a secret does not belong into a file"),
        ('[wandb]\nentity = "${oc.env:WANDB_API_KEY}"\n', "wandb.entity: WANDB_API_KEY is a secret"),
    ],
)
def test_a_file_that_cannot_be_read(read: Read, tmp_path: Path, text: str, message: str) -> None:
    said = refusal(lambda: read(text))
    assert said.startswith(f"{tmp_path / 'env.toml'}: ")
    assert message in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f'[c]\n{SLURM}accout = "x"\n',
            "c.accout: unknown key; did you mean 'account'? valid: account, batch_",
        ),
        (f'[c]\n{SLURM}zzz = "x"\n', "c.zzz: unknown key; valid: account, "),
        (f'[c]\n{SLURM}name = "x"\n', "c.name: unknown key"),
        (f'[a]\n{SLURM}shm_size = "1g"\n[c]\nextends = "a"\n', "a.shm_size: unknown key"),
        (f'[c]\n{DOCKER}partition = "x"\n', "c.partition: unknown key"),
        ('[c]\naccount = "x"\n', "c.account: unknown key; valid: env, env_vars, executor, extends"),
    ],
)
def test_unknown_keys(read: Read, text: str, message: str) -> None:
    profiles = read(text)
    assert f"{profiles.file}: {message}" in refusal(lambda: profiles.get("c"))


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "WANDB_API_KEY",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "TOKEN",
        "db_password",
        "PGPASSWORD",
        "SSH_PASSPHRASE",
        "MYSQL_PASSWD",
        "GOOGLE_CREDENTIALS",
    ],
)
@pytest.mark.parametrize("value", ["sk-12345", "${oc.env:NO_SUCH,sk-12345}", "x${oc.env:HF_TOKEN}sk-12345"])
def test_a_secret_in_the_file_is_refused_and_not_repeated(read: Read, name: str, value: str) -> None:
    profiles = read(f'[c]\n{SLURM}env = {{{name} = "{value}"}}\n')
    with pytest.raises(ConfigError, match=f"c.env: {name} is a secret") as error:
        profiles.get("c")
    assert "12345" not in str(error.value)
    assert (error.value.__cause__, error.value.__suppress_context__) == (None, True)
    with pytest.raises(ValidationError) as invalid:
        LocalProfile(name="c", env={name: value})
    assert "12345" not in str(invalid.value)


@pytest.mark.parametrize("key", ["host", "container_image", "mounts"])
def test_no_secret_gets_into_another_key(read: Read, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-12345")
    value = '["${oc.env:HF_TOKEN}"]' if key == "mounts" else '"a-${oc.env:HF_TOKEN}"'
    message = refusal(lambda: slurm(read, f"{key} = {value}\n"))
    assert f"c.{key}: HF_TOKEN is a secret" in message
    assert "12345" not in message


@pytest.mark.parametrize("value", ["${oc.env:${user}}", "${oc.env:'HF_TOKEN'}", "${ oc.env:${user}}"])
def test_no_secret_is_taken_by_a_detour(read: Read, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-12345")
    for key in ("host", "env.A"):
        message = refusal(lambda key=key: slurm(read, f'user = "HF_TOKEN"\n{key} = "{value}"\n'))  # type: ignore[misc]
        assert "oc.env:" in message
        assert "12345" not in message


def test_keys_of_training_may_say_anything(read: Read) -> None:
    commands = '["export A=${B:-}", "login ${oc.env:NGC_API_KEY}"]'
    profiles = read(f"[c]\n{SLURM}startup_commands = {commands}\n")
    assert profiles.get("c").name == "c"
    assert profiles.unused("c") == ["startup_commands"]


def test_a_secret_is_passed_on_by_name(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "MY_API_KEY"):
        monkeypatch.setenv(name, "s-12345")
    profile = slurm(
        read,
        '[c.env]\nHF_TOKEN = "${oc.env:HF_TOKEN,\'\'}"\nNGC = "${oc.env:MY_API_KEY}"\n'
        'TOKENIZERS_PARALLELISM = "false"\nMAX_TOKENS = 9\nMONKEY = "x"\n',
    )
    assert profile.secret_env == {"HF_TOKEN": "HF_TOKEN", "NGC": "MY_API_KEY"}
    assert profile.plain_env == {"TOKENIZERS_PARALLELISM": "false", "MAX_TOKENS": "9", "MONKEY": "x"}
    assert "12345" not in f"{profile!r} {profile.model_dump_json()}"


def test_no_other_variable_reads_a_secret(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "s-12345")
    message = refusal(
        lambda: slurm(read, '[c.env]\nHF_TOKEN = "${oc.env:HF_TOKEN}"\nA = "${env.HF_TOKEN}"\n')
    )
    assert "12345" not in message


def test_the_readmes_example(read: Read) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    profiles = read(example)
    executors = {profiles.get(name).executor for name in profiles.names}
    assert executors == {"local", "docker", "slurm"}
    assert not any(profiles.unused(name) for name in profiles.names)
    assert profiles.get("cluster").secret_env == {"HF_TOKEN": "HF_TOKEN"}


def test_the_list_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "env.toml"
    file.write_text(
        f'[base]\nexecutor = "slurm"\npartition = "batch"\npackager = "git"\n'
        f'[cluster]\nextends = "base"\nremote_job_dir = "/w"\ntunnel = "ssh"\nhost = "login"\n'
        f'[box]\n{DOCKER}docker_conn_id = "hub"\n'
        f'[by-id]\n{SLURM}tunnel = "ssh"\nssh_conn_id = "ssh_gpu"\n'
    )
    monkeypatch.setenv("EVALCORE_ENV_TOML", str(file))
    with pytest.raises(SystemExit):
        cli.main(["profiles"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:6] == [
        ["NAME", "EXECUTOR", "HOST", "PARTITION", "IMAGE"],
        ["local", "local", "-", "-", "-"],
        ["base", "?"],
        ["cluster", "slurm", "login", "batch", "-"],
        ["box", "docker", "hub", "-", "evalcore:1"],
        ["by-id", "slurm", "ssh_gpu", "-", "-"],
    ]
    assert lines[6][:4] == ["base", "cannot", "be", "used:"]
    with pytest.raises(SystemExit):
        cli.main(["profiles", "cluster"])
    said = capsys.readouterr()
    assert json.loads(said.out)["results"] == "/w/results"
    assert said.err == "not used by an evaluation: packager\n"
