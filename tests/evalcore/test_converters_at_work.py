"""Converters that run: each checkpoint is converted once, wholly, and nothing is left of what was stopped."""

from __future__ import annotations

import json
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from distributed_checkpoint import COPY, write_converter, write_distributed
from evalcore import converters
from evalcore.checkpoints import Checkpoint, load_checkpoint
from evalcore.completeness import check_hugging_face
from evalcore.config import load_config
from evalcore.convert import convert
from evalcore.errors import CheckpointError, ConfigError
from evalcore.generate import generate
from evalcore.model_folder import read_header
from recording_server import recording
from seen_processes import is_alive
from tiny_folder import write_checkpoint
from waiting import started, until

pytestmark = pytest.mark.slow

# Has a log of its runs, one line each.
LOGGED = "import sys; open({log!r}, 'a').write(sys.argv[1] + chr(10)); "
CONVERT = """
from pathlib import Path
from evalcore.checkpoints import load_checkpoint
from evalcore.convert import convert
convert(load_checkpoint(Path({checkpoint!r}), converter="c"), "hf", Path({out!r}))
"""


class Place:
    """A checkpoint, what it becomes, a folder of converters and one for what they make."""

    def __init__(self, root: Path) -> None:
        self.include = root / "include"
        self.out = root / "out"
        self.log = root / "log"
        self.checkpoint = write_distributed(root / "run" / "step-1")
        self.model = write_checkpoint(root / "model", shards=2)
        (self.model / "tokenizer.json").write_text("{}")
        self.copy = LOGGED.format(log=str(self.log)) + COPY.format(model=str(self.model))

    def converter(self, script: str, copy_from: Path | None = None, name: str = "c") -> None:
        write_converter(self.include, name, script, copy_from)

    def info(self, name: str = "c") -> Checkpoint:
        return load_checkpoint(self.checkpoint, converter=name)

    def convert(self, target: str = "hf", name: str = "c") -> Path:
        made = convert(self.info(name), target, self.out)
        assert made is not None
        return made

    @property
    def runs(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    @property
    def left(self) -> list[Path]:
        """What lies where conversions are made, beside their lock."""
        return sorted(path for path in self.out.iterdir() if path.name != ".convert.lock")

    def another_process(self) -> list[str]:
        return [sys.executable, "-c", CONVERT.format(checkpoint=str(self.checkpoint), out=str(self.out))]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("EVALCORE_INCLUDE", str(tmp_path / "include"))
    return Place(tmp_path)


def test_it_is_done_once_and_what_it_prints_is_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    said = "import sys; print('10%\\r100%', flush=True); print('\\x1b[31mslow', file=sys.stderr); "
    place.converter(said + place.copy)
    made = place.convert()
    check_hugging_face(made)
    assert place.convert() == made
    assert (place.runs, place.left) == (1, [made])
    assert [m for m in caplog.messages if m.startswith("converter c: ")][1:] == [
        "converter c: 100%",
        "converter c: slow",
    ]
    assert place.log.read_text() == f"{place.checkpoint}\n"


def test_what_is_printed_without_lines_is_read_in_pieces(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    place.converter("import sys; sys.stdout.write('x' * (3 << 16)); " + place.copy)
    place.convert()
    assert [m for m in caplog.messages if m.startswith("converter c: x")] == [
        f"converter c: {'x' * 2000}"
    ] * 3


def test_what_came_out_is_cast_as_ever(place: Place) -> None:
    place.converter(place.copy)
    cast, made = place.convert("hf:bfloat16"), place.convert()
    assert (place.runs, place.left) == (1, sorted([cast, made]))
    assert cast.name == made.name.replace("hf-", "hf-bfloat16-")
    dtypes = {t["dtype"] for shard in cast.glob("*.safetensors") for t in read_header(shard).values()}
    assert dtypes == {"BF16", "I64"}


def test_config_and_tokenizer_are_copied_where_the_command_wrote_none(place: Place, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other")
    for name in ("config.json", "chat_template.jinja", "tokenizer.json", "model.safetensors.index.json"):
        (other / name).write_text('{"from": "other"}')
    (place.model / "tokenizer.json").unlink()
    place.converter(place.copy, copy_from=other)
    made = place.convert()
    assert {path.name for path in made.iterdir()} == {
        "config.json",
        "chat_template.jinja",
        "tokenizer.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    }
    assert json.loads((made / "tokenizer.json").read_text()) == {"from": "other"}
    for name in ("config.json", "model.safetensors.index.json"):
        assert (made / name).read_bytes() == (place.model / name).read_bytes()


def test_by_default_they_are_the_checkpoints_own(place: Place) -> None:
    place.converter(place.copy)
    (place.model / "tokenizer.json").rename(place.checkpoint / "tokenizer.json")
    (place.model / "config.json").rename(place.checkpoint / "config.json")
    check_hugging_face(place.convert())


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("model-00002-of-00002.safetensors", "1 of 2 shards missing, first model-00002-of-00002.safetensors"),
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer yet"),
    ],
)
def test_what_is_not_whole_is_refused_by_what_is_missing(place: Place, harm: str, message: str) -> None:
    place.converter(place.copy)
    (place.model / harm).unlink()
    with pytest.raises(CheckpointError) as error:
        place.convert()
    made_none = f"converter c made no complete Hugging Face folder of {place.checkpoint}: "
    assert str(error.value).startswith(made_none + message)
    assert ".tmp" not in str(error.value)
    assert place.left == []


def test_links_by_the_name_that_a_folder_has_while_it_is_made_would_lead_nowhere(place: Place) -> None:
    moved = (
        "; import os; os.chdir(sys.argv[2]); os.mkdir('real'); os.rename('config.json', 'real/config.json'); "
    )
    place.converter(f"{place.copy}{moved}os.symlink(os.path.abspath('real/config.json'), 'config.json')")
    with pytest.raises(CheckpointError, match=r"converter c: config\.json is a link by the name"):
        place.convert()
    assert place.left == []
    place.converter(f"{place.copy}{moved}os.symlink('real/config.json', 'config.json')")
    check_hugging_face(place.convert())


def test_a_command_that_fails_is_one_line_with_its_last_words(place: Place) -> None:
    place.converter("import sys; print('line', *range(9), sep='\\n', flush=True); sys.exit('no room\\tleft')")
    with pytest.raises(CheckpointError) as error:
        place.convert()
    assert str(error.value) == (
        f"converter c failed on {place.checkpoint} (exit code 1): 5 | 6 | 7 | 8 | no room\tleft"
    )
    assert place.left == []
    # As it may come from a program that is not Python: no UTF-8, one line as long as a file, and empty ones.
    place.converter(
        "import sys; sys.stdout.buffer.write(b'first\\nk\\xe9y ' + 5000 * b'x' + b'\\n\\n\\n\\n\\n\\n'); sys.exit(2)"
    )
    with pytest.raises(CheckpointError) as error:
        place.convert()
    assert str(error.value).endswith(f"(exit code 2): first | k\ufffdy {296 * 'x'}")
    place.converter("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(CheckpointError, match=r"\(exit code 137\): it printed nothing"):
        place.convert()


def test_a_program_that_is_not_here(place: Place) -> None:
    file = place.include / "converters" / "c.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("command: [no-such-program, '{checkpoint}', '{target}']")
    with pytest.raises(ConfigError, match="converter c: command: there is no program no-such-program here"):
        place.convert()
    assert place.left == []


def test_each_place_stands_for_what_it_is_called(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No other interpreter is found by its name, and a folder may be called as a place is.
    monkeypatch.setenv("PATH", str(tmp_path))
    place.checkpoint = place.checkpoint.rename(place.checkpoint.with_name("{target}"))
    given = tmp_path / "given"
    script = f"import sys; open({str(given)!r}, 'w').write(f'{{sys.executable}} {{sys.argv[1]}}'); "
    file = write_converter(place.include, "c", script + place.copy)
    file.write_text(file.read_text().replace(json.dumps(sys.executable), json.dumps("{python}")))
    check_hugging_face(place.convert())
    assert given.read_text() == f"{sys.executable} {place.checkpoint}"


def test_a_daemon_that_the_command_leaves_is_not_waited_for(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converters, "_LAST_WORDS", 0.1)
    left = tmp_path / "left"
    # In a group of its own, with the output of its parent.
    daemon = "import os, subprocess; other = subprocess.Popen(['sleep', '300'], start_new_session=True); "
    place.converter(f"{daemon}open({str(left)!r}, 'w').write(str(other.pid)); {place.copy}")
    with ThreadPoolExecutor() as threads:
        converting = threads.submit(place.convert)
        other = psutil.Process(int(until(lambda: left.exists() and left.read_text(), "the daemon")))
        try:
            check_hugging_face(converting.result(timeout=60))
            assert other.is_running()
        finally:
            other.kill()


def test_two_converters_and_a_changed_one_make_folders_of_their_own(place: Place) -> None:
    place.converter(place.copy)
    place.converter(place.copy + "  # another", name="d")
    made = [place.convert(), place.convert(name="d")]
    place.converter(place.copy + "  # changed")
    made.append(place.convert())
    assert (len(set(made)), place.runs) == (3, 3)


def test_a_checkpoint_that_changes_meanwhile_is_not_kept(place: Place) -> None:
    place.converter(place.copy + "; open(sys.argv[1] + '/__0_0.distcp', 'ab').write(b'more')")
    with pytest.raises(CheckpointError, match="changed while it was converted"):
        place.convert()
    assert place.left == []


def test_two_at_once_convert_once(place: Place) -> None:
    place.converter("import time; time.sleep(0.5); " + place.copy)
    with started(place.another_process()) as other, ThreadPoolExecutor() as threads:
        made = [threads.submit(place.convert) for _ in range(2)]
        assert len({job.result(timeout=60) for job in made}) == 1
        assert other.wait(60) == 0
    assert (place.runs, len(place.left)) == (1, 1)


def descendants(script: Path) -> list[psutil.Process]:
    """The processes whose pids a converter has written, one on a line, two of them."""
    pids = until(lambda: (p := script.read_text().split() if script.exists() else []) and len(p) == 2 and p)
    return [psutil.Process(int(pid)) for pid in pids]


# A command with a process of its own that does not end by itself, and takes a second to when told to.
HANGS = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit()))
pathlib.Path(sys.argv[2], "model.safetensors").write_bytes(b"half")
other = subprocess.Popen(["sleep", "300"])
pathlib.Path({pids!r}).write_text(f"{{os.getpid()}} {{other.pid}}")
time.sleep(300)
"""


@pytest.mark.parametrize("verb", ["convert", "generate"])
def test_sigterm_ends_the_command_with_all_it_started_and_leaves_nothing(
    place: Place, tmp_path: Path, verb: str
) -> None:
    pids = tmp_path / "pids"
    place.converter(HANGS.format(pids=str(pids)))
    options = [
        str(place.checkpoint),
        "-b",
        "tiny-arithmetic:0",
        "-o",
        str(tmp_path / "results"),
        "converter=c",
    ]
    with started([sys.executable, "-m", "evalcore.cli", verb, *options]) as process:
        running = descendants(pids)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        assert not any(is_alive(it.pid) for it in running)
    folder = tmp_path / "results" / "run" / "step-1"
    assert [path.name for path in folder.iterdir()] == [".convert.lock"]


def test_after_a_kill_the_next_one_waits_for_the_command_and_begins_anew(
    place: Place, tmp_path: Path
) -> None:
    # Told to stop it goes on for a while, and still writes: until then the next command must not begin.
    begun, late = tmp_path / "begun", tmp_path / "late"
    place.converter(
        f"""
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(1.5)
    pathlib.Path(sys.argv[2], "model.safetensors").write_bytes(b"late")
    pathlib.Path({str(late)!r}).touch()
    sys.exit(1)
if not pathlib.Path({str(begun)!r}).exists():
    signal.signal(signal.SIGTERM, stop)
    pathlib.Path(sys.argv[2], "left-over.safetensors").write_bytes(b"half")
    pathlib.Path({str(begun)!r}).touch()
    time.sleep(300)
assert pathlib.Path({str(late)!r}).exists(), "begun before the end of the first"
{place.copy}
"""
    )
    with started(place.another_process()) as process:
        until(begun.exists, "a converter at work")
        process.kill()
        process.wait()
        made = place.convert()
    assert place.left == [made]
    assert {path.name for path in made.iterdir()} == {path.name for path in place.model.iterdir()}


def test_rows_of_two_converters_are_never_each_others(place: Place, tmp_path: Path) -> None:
    place.converter(place.copy)
    place.converter(place.copy + "  # another", name="d")
    with recording() as server:

        def new(name: str) -> int:
            config = load_config(
                checkpoint=str(place.checkpoint),
                results=str(tmp_path / "results"),
                benchmarks="tiny-arithmetic:0",
                max_problems=2,
                converter=name,
                server=server.settings,
                inference={"endpoint": "completions"},
            )
            [generated] = generate(config)
            return generated.new

        assert [new("c"), new("d"), new("c"), new("d")] == [2, 2, 0, 0]
        # A checkpoint that is overwritten is noticed between its conversion and the first question.
        place.converter(place.copy + "  # a third one")
        server.on_request = lambda: (place.checkpoint / "common.pt").touch()
        with pytest.raises(CheckpointError, match="overwritten while its server started"):
            new("c")
