"""generate: ask the model every problem of every benchmark, as many times as wanted, and keep what it says.

One call owns its inference server: started on the checkpoint, used for all the benchmarks, stopped. What
is there already is not asked again, so the same call goes on after any end. A row of
``<results>/<run>/<checkpoint>/<benchmark>/generations/<id>-0.jsonl``::

    {"problem_id": "tiny-arithmetic-10", "sample": 1, "problem": "There are 8 boxes with 8 books in each. …",
     "expected_answer": "64", "subset_for_metrics": "one-step",
     "generation": "8 * 8 = 64. The answer is \\boxed{64}.", "num_generated_tokens": 19,
     "finish_reason": "stop", "seed": 1}

A problem that can never be answered (it does not fit the context) has an empty generation and an ``error``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from evalcore import grading
from evalcore.benchmarks import SUBSET, Problem, ProblemSet, load_benchmark, wanted_samples
from evalcore.chat_template import ChatTemplate, load_tokenizer
from evalcore.checkpoints import Checkpoint, checkpoint_of
from evalcore.client import Prompted, Reply, Request, UnansweredError, ask
from evalcore.config import BenchmarkRun, EvalConfig, Sampling
from evalcore.convert import convert
from evalcore.errors import CheckpointError, ConfigError, EvalError, ResultsError, ServerError
from evalcore.manifest import (
    GENERATIONS,
    MANIFEST,
    BenchmarkInfo,
    Grading,
    Manifest,
    PromptInfo,
    ServerInfo,
    settings_id,
)
from evalcore.prepare import prepare
from evalcore.processes import unwound_by_sigterm
from evalcore.progress import Progress
from evalcore.prompts import Prompt, load_prompt
from evalcore.records import GREEDY, KeySet, PartWriter, Row, read_keys
from evalcore.serving.args import answering_args
from evalcore.serving.launch import Endpoint, serving

log = logging.getLogger(__name__)

# A group's slots on the server stand idle from a short answer to the end of the longest one, the more
# the larger it is; and what it saves, the prompt's prefill, is saved with the first few.
_LARGEST_GROUP = 4
_GO_ON = "all answers so far are kept, run the same command again to go on"


class Generated(NamedTuple):
    """What one benchmark's folder holds now: samples wanted, of which so many are new and so many errors."""

    benchmark: str
    folder: Path
    samples: int
    new: int
    errors: int

    def __str__(self) -> str:
        errors = f", {self.errors:,} of them cannot be answered" if self.errors else ""
        return f"{self.benchmark}: {self.samples:,} samples, {self.new:,} new{errors}: {self.folder}"


def generate(config: EvalConfig) -> list[Generated]:
    """Make every answer that is missing, of all the benchmarks of ``config``, in their order.

    A benchmark that fails does not lose the others; a dead server ends all. On SIGTERM the server is
    stopped and the process exits with 143.

    Raises:
        EvalError: after all that could be done was done; names each benchmark that failed and why.
        CheckpointError: the checkpoint is missing, incomplete, or was overwritten meanwhile.
        ServerError: the server did not start, or died.
    """
    checkpoint = checkpoint_of(config)
    results: list[Generated] = []
    failures: list[str] = []
    with _stopping_gently(), ExitStack() as parts:
        model = convert(checkpoint, config.convert_to, checkpoint.folder(config.results))
        prepared: dict[str, _Work] = {}
        # In one order, whatever the config's: two that each had what the other waits for would wait for ever.
        for run in sorted(config.benchmarks, key=lambda run: run.name):
            try:
                prepared[run.name] = _prepare(config, run, checkpoint, model, parts)
            except EvalError as error:
                failures.append(f"{run.name}: {error}")
        works = [prepared[run.name] for run in config.benchmarks if run.name in prepared]
        if waiting := [work for work in works if work.found < work.total]:
            log_file = waiting[0].folder / "server.log"
            try:
                with serving(config.server, model, name=checkpoint.name, log_file=log_file) as endpoint:
                    # The digest is older than what the server has read.
                    if checkpoint_of(config) != checkpoint:
                        raise CheckpointError(
                            f"checkpoint {checkpoint.path}: overwritten while its server started; nothing was "
                            "asked, run the same command again"
                        )
                    for work in works:
                        try:
                            results.append(_generate(work, config, endpoint))
                        except EvalError as error:
                            if isinstance(error, ServerError) and not isinstance(error, UnansweredError):
                                raise
                            failures.append(f"{work.problems.benchmark}: {error}")
            except (ServerError, CheckpointError) as error:
                if not failures:
                    raise
                failures.append(str(error))
        else:
            results = [_generate(work, config, None) for work in works]
    if failures:
        raise EvalError(
            f"{len(failures)} of {len(config.benchmarks)} benchmarks failed: {'; '.join(failures)}"
        )
    return results


@dataclass(frozen=True)
class _Work:
    """One benchmark, ready to be asked. found: how many of the total samples are there already."""

    folder: Path
    manifest: Manifest
    problems: ProblemSet
    prompt: Prompt
    template: ChatTemplate | None
    tokenizer: Tokenizer | None
    part: PartWriter
    keys: KeySet
    wanted: range
    total: int
    found: int


def _prepare(
    config: EvalConfig, run: BenchmarkRun, checkpoint: Checkpoint, model: Path | None, parts: ExitStack
) -> _Work:
    """Everything that can go wrong before a server is started. The part stays locked until ``parts`` ends."""
    benchmark = load_benchmark(run.name)
    wanted = wanted_samples(config, run, benchmark)
    problems = prepare(benchmark, split=config.split).first(config.max_problems)
    prompt = load_prompt(config.prompt or benchmark.prompt)
    prompt.messages(problems.problems[0].fields)  # does it have all its variables?
    sampling = Sampling.resolve(config.inference, benchmark.generation)
    server_args = answering_args(config.server.args)
    template = _chat_template(model, sampling, server_args) if model else None
    folder = checkpoint.folder(config.results) / benchmark.name
    manifest = Manifest(
        settings=settings_id(config, checkpoint, benchmark),
        checkpoint=checkpoint,
        converted_to=config.convert_to,
        benchmark=BenchmarkInfo(
            name=benchmark.name,
            split=problems.split,
            digest=problems.digest,
            num_problems=len(problems),
            metrics=benchmark.metrics,
            needs_judge=benchmark.judge,
        ),
        prompt=PromptInfo(name=prompt.name, digest=prompt.digest),
        chat_template=template.digest if template else None,
        server_args=server_args,
        sampling=sampling,
        samples=wanted.stop,
        greedy=GREEDY in wanted,
        server=ServerInfo(
            type=config.server.type, model=config.server.model or checkpoint.name, version=None
        ),
        grading=Grading(grader=benchmark.grader, options=benchmark.grader_options, version=grading.VERSION),
    )
    part = parts.enter_context(PartWriter(folder / GENERATIONS, f"{manifest.generation_id}-0"))
    keys = read_keys(folder / GENERATIONS, manifest.generation_id)
    found = sum((problem.id, sample) in keys for problem in problems.problems for sample in wanted)
    manifest = _with_what_was_known(manifest, folder)
    # Before the server starts: should it fail, nobody may take what an earlier manifest describes for this.
    manifest.save(folder)
    return _Work(
        folder=folder,
        manifest=manifest,
        problems=problems,
        prompt=prompt,
        template=template,
        tokenizer=_tokenizer(model) if model and template and sampling.endpoint == "completions" else None,
        part=part,
        keys=keys,
        wanted=wanted,
        total=len(problems) * len(wanted),
        found=found,
    )


def _chat_template(
    model: Path, sampling: Sampling, server_args: tuple[tuple[str, ...], ...]
) -> ChatTemplate | None:
    """The checkpoint's chat template, None for a base model that is asked with plain text."""
    settings = model / "tokenizer_config.json"
    has_template = (model / "chat_template.jinja").is_file() or (
        settings.is_file() and b'"chat_template"' in settings.read_bytes()
    )
    if has_template:
        return ChatTemplate.load(model)
    if sampling.endpoint == "chat" and not any(name == "--chat-template" for name, *_ in server_args):
        raise ConfigError(
            f"checkpoint {model} has no chat template; for a base model set inference.endpoint=completions"
        )
    return None


def _tokenizer(model: Path) -> Tokenizer | None:
    """The tokenizer that turns a rendered chat into ids.

    As text, a server would put a second BOS before the one that the template wrote, and there is no
    setting against it that all of them know.
    """
    return load_tokenizer(model) if (model / "tokenizer.json").is_file() else None


def _with_what_was_known(manifest: Manifest, folder: Path) -> Manifest:
    """Keep what is known of the same rows: the server they came from, the judge, and what else was asked.

    ``gsm8k:0`` after ``gsm8k:8 --skip-greedy`` adds the greedy answers to the samples, and the other way
    round; another number of samples replaces the one before.
    """
    if not (folder / MANIFEST).exists():
        return manifest
    try:
        old = Manifest.load(folder)
    except ResultsError as error:
        log.warning("%s", error)
        return manifest
    if old.generation_id != manifest.generation_id:
        return manifest
    judging = old.judging if old.grading_id == manifest.grading_id else None
    return manifest.model_copy(
        update={
            "server": old.server,
            "judging": judging,
            "samples": manifest.samples or old.samples,
            "greedy": manifest.greedy or old.greedy,
        }
    )


def _generate(work: _Work, config: EvalConfig, endpoint: Endpoint | None) -> Generated:
    """Ask what is missing. endpoint None: nothing is."""
    name = work.problems.benchmark
    new = errors = 0
    if endpoint and work.found < work.total:
        server = ServerInfo(type=endpoint.type, model=endpoint.model, version=endpoint.version)
        work.manifest.model_copy(update={"server": server}).save(work.folder)
        if work.found:
            log.info("%s: going on, %s of %s samples are there", name, f"{work.found:,}", f"{work.total:,}")
        with Progress(name, work.total, done=work.found) as progress:

            def keep(reply: Reply) -> None:
                nonlocal new, errors
                rows = _rows(reply)
                for row in rows:
                    work.part.write(row)
                new += len(rows)
                if reply.error:
                    if not errors:
                        log.warning("%s: %s cannot be answered: %s", name, rows[0]["problem_id"], reply.error)
                    errors += len(rows)
                tokens = sum(choice.num_tokens or 0 for choice in reply.choices)
                progress.advance(samples=len(rows), tokens=tokens)

            ask(
                _requests(work, config.client.group_samples),
                keep,
                address=endpoint.address,
                model=endpoint.model,
                client=config.client,
                api_key_env=config.server.api_key_env,
            )
    return Generated(name, work.folder, work.total, new, errors)


class _Key(NamedTuple):
    """What a reply's rows need: the problem, and the index of the first sample."""

    problem: Problem
    sample: int


def _requests(work: _Work, group_samples: bool) -> Iterator[Request]:
    """The missing samples, problem by problem, so that a server finds the prompt in its prefix cache."""
    sampling = work.manifest.sampling
    greedy = sampling.model_copy(update={"temperature": 0.0})
    for problem in work.problems.problems:
        runs = missing_runs(
            work.keys, problem.id, work.wanted, longest=_LARGEST_GROUP if group_samples else 1
        )
        if not runs:
            continue
        prompt: Prompted
        if sampling.endpoint == "chat":
            prompt = work.prompt.messages(problem.fields)
        else:
            prompt = work.prompt.text(problem.fields, work.template)
            if work.tokenizer:
                prompt = work.tokenizer.encode(prompt, add_special_tokens=False).ids
        for run in runs:
            key = _Key(problem, run.start)
            if run.start == GREEDY:
                yield Request(key, prompt, greedy)
            else:
                seed = first_seed(sampling.seed, problem.id) + run.start
                yield Request(key, prompt, sampling, n=len(run), seed=seed)


def first_seed(seed: int, problem_id: str) -> int:
    """The seed of a problem's sample 0, in [0, 2**31 - 2**20); sample i is drawn with the i-th after it.

    With the same seeds for every problem, all first samples of a benchmark would share their random
    numbers: problems would not be independent, and error bars over them too small.
    """
    digest = hashlib.sha256(f"{seed}/{problem_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (2**31 - 2**20)


def missing_runs(keys: KeySet, problem_id: str, wanted: range, *, longest: int) -> list[range]:
    """The wanted samples that are not there: the greedy one alone, the others in runs without a gap.

    >>> missing_runs(keys_with_sample_2, "gsm8k-7", range(GREEDY, 6), longest=2)
    [range(-1, 0), range(0, 2), range(3, 5), range(5, 6)]
    """
    runs: list[range] = []
    for sample in wanted:
        if (problem_id, sample) in keys:
            continue
        last = runs[-1] if runs else None
        if last and last.stop == sample and last.start != GREEDY and len(last) < longest:
            runs[-1] = range(last.start, sample + 1)
        else:
            runs.append(range(sample, sample + 1))
    return runs


def _rows(reply: Reply) -> list[Row]:
    request = reply.request
    problem, first = request.key
    rows: list[Row] = []
    for i in range(request.n):
        row: Row = {
            "problem_id": problem.id,
            "sample": first + i,
            "problem": problem.fields["problem"],
            "expected_answer": problem.expected_answer,
        }
        if problem.subset is not None:
            row[SUBSET] = problem.subset
        if "cluster" in problem.fields:  # what error bars are clustered by
            row["cluster"] = str(problem.fields["cluster"])
        if reply.error:
            row |= {"generation": "", "num_generated_tokens": 0, "finish_reason": None, "error": reply.error}
        else:
            text, reason, tokens = reply.choices[i]
            row |= {"generation": text, "num_generated_tokens": tokens, "finish_reason": reason}
        row["seed"] = None if request.seed is None else request.seed + i
        rows.append(row)
    return rows


@contextmanager
def _stopping_gently() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, so that the server and the files are closed."""
    try:
        with unwound_by_sigterm(_GO_ON):
            yield
    except KeyboardInterrupt:
        log.warning("stopped by Ctrl-C; %s", _GO_ON)
        raise
