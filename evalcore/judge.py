"""judge: ask a model whether an answer means the same as the reference. ``grades/`` → ``judgements/``.

>>> judge(Path("results/grpo-7b/step-500/aime24"), Judge(model="gpt-5", address="https://…/v1"))
JudgeSummary(rows=1920, asked=214, skipped=688, yes=1011, no=905, unparsable=4)

A row of a judgements part; ``judgement`` holds the model's words, as in NeMo-Skills::

    {"problem_id": "aime24-7", "sample": 3, "judgement": "Both are 204.\\nJudgement: Yes", "judge_correct": true}

``judge_correct`` is null where no verdict can be read from the words, or where the model could not be
asked. What needs no model is not asked: no answer is no, an answer that is the reference is yes. Each
distinct (problem, reference, answer) is asked once by a judge model under a prompt, whatever checkpoint
gave it: its words are kept in the cache. With ``majority`` only the answers that most samples of a problem
gave are judged: one question a problem, and all that majority@k needs.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from evalcore import config
from evalcore.cache import Cache
from evalcore.client import Reply, Request, ask
from evalcore.errors import ConfigError, ResultsError
from evalcore.grading.extract import after_reasoning
from evalcore.grading.math.spelling import normalize, squeezed
from evalcore.manifest import GENERATIONS, GRADES, JUDGEMENTS, Judging, Manifest, PromptInfo
from evalcore.progress import Progress
from evalcore.prompts import Prompt, load_prompt
from evalcore.records import GREEDY, KeySet, PartWriter, Row, key_of, read_keys, read_rows
from evalcore.tally import vote_of

# `Judgement: Yes.`, `**Judgement**: yes`, `Judgment: [No]`, `Judgement: **\boxed{Yes}**`
_VERDICT = re.compile(
    r"\bjudge?ment\b[\s*_`:=\-–]{0,8}(?:is\b)?[\s*_`:\"'\[({$]{0,8}(?:\\(?:boxed|text|textbf)\{){0,2}(yes|no)\b"
    r"(?!\s*(?:/|or\b|and\b)\s*(?:yes|no)\b)",  # the question itself: `Judgement: Yes or No`
    re.IGNORECASE,
)

_NO_ANSWER = "There is no answer; the model was not asked.\nJudgement: No"
_SAME_TEXT = "The answer is the reference; the model was not asked.\nJudgement: Yes"

_Question = tuple[str, str]
"""(problem_id, predicted_answer)"""


class JudgeSummary(NamedTuple):
    """Counts over all rows of the folder's present judging; asked: questions put to the model by this call.

    skipped: rows that need no model. unparsable: rows without a verdict, neither yes nor no.
    """

    rows: int
    asked: int
    skipped: int
    yes: int
    no: int
    unparsable: int


def judge(
    folder: Path, judge: config.Judge, *, settings: str | None = None, majority: bool = False
) -> JudgeSummary:
    """Judge the graded rows of a benchmark folder that are not judged yet.

    Args:
        folder: holds ``manifest.json``, ``generations/`` and ``grades/``.
        judge: the model, its address, prompt and sampling; a key comes from the environment variable
            ``judge.api_key_env``.
        settings: id of the evaluation that the folder must be of (``manifest.settings_id``); None: any.
        majority: judge only what most samples of a problem answered, all of it where there is a tie.

    Raises:
        ConfigError: no judge model, or an unknown prompt.
        ResultsError: nothing graded yet, other settings, or the folder cannot be written.
        ServerError: the judge is dead, refuses every question, or left some unanswered after all
            retries; what it answered is kept, and the next call asks for the rest.
    """
    if not judge.model:
        raise ConfigError("no judge model; set judge.model=<name> and judge.address=http://host:port/v1")
    prompt = load_prompt(judge.prompt)
    manifest = Manifest.load(folder, settings)
    grades = manifest.grading_id
    num_graded = len(read_keys(folder / GRADES, grades))
    if not num_graded:
        raise ResultsError(f"{folder}: no grades; run `evalcore grade {folder}` first")
    judging = Judging(
        model=judge.model,
        prompt=PromptInfo(name=prompt.name, digest=prompt.digest),
        temperature=judge.temperature,
        tokens_to_generate=judge.tokens_to_generate,
    )
    if judging != manifest.judging:
        manifest = manifest.model_copy(update={"judging": judging})
        manifest.save(folder)
    part = manifest.judging_id
    assert part is not None, "judging was set just now"

    done = read_keys(folder / JUDGEMENTS, part)
    asked = 0
    if len(done) < num_graded:
        with PartWriter(folder / JUDGEMENTS, f"{part}-0") as writer:
            # Again: who wrote here until now may have left less to do.
            done = read_keys(folder / JUDGEMENTS, part)
            with Progress(f"judge {manifest.benchmark.name}", num_graded, done=len(done)) as progress:
                rows = _Rows(writer, progress)
                problems = _problems(folder, manifest)
                wanted = _majority_answers(folder, manifest) if majority else None
                open_questions = _settle(folder, manifest, problems, done, rows, wanted)
                asked = _ask(open_questions, problems, prompt, judge, rows)
    return _summary(folder, part, asked)


def parse_verdict(judgement: str) -> bool | None:
    """The last ``Judgement: yes`` or ``no`` in any usual dress; None if there is none.

    What the judge thought before ``</think>`` is no verdict.
    """
    answer = after_reasoning(judgement).answer
    verdicts = _VERDICT.findall(answer) if answer else []
    return verdicts[-1].lower() == "yes" if verdicts else None


class _Problem(NamedTuple):
    problem: str
    expected_answer: str


class _Rows(NamedTuple):
    """Where judgements are written, and counted."""

    writer: PartWriter
    progress: Progress

    def write(self, problem_id: str, samples: list[int], judgement: str, correct: bool | None) -> None:
        for sample in samples:
            row: Row = {"problem_id": problem_id, "sample": sample}
            self.writer.write({**row, "judgement": judgement, "judge_correct": correct})
        self.progress.advance(samples=len(samples), tokens=0)


def _problems(folder: Path, manifest: Manifest) -> dict[str, _Problem]:
    rows = read_rows(folder / GENERATIONS, manifest.generation_id)
    return {row["problem_id"]: _Problem(row["problem"], str(row["expected_answer"])) for row in rows}


_RIGHT = "right"


def _majority_answers(folder: Path, manifest: Manifest) -> set[_Question]:
    """The answers with the most votes of each problem, and the spellings that voted with them."""
    votes: dict[str, Counter[str]] = {}
    spellings: dict[tuple[str, str], set[str]] = {}
    for row in read_rows(folder / GRADES, manifest.grading_id):
        problem_id, sample = key_of(row)
        # Right answers mean the same, however they are spelled: majority@k counts them together.
        key = _RIGHT if row["symbolic_correct"] else vote_of(row, manifest.grading.grader)
        if key is None or sample == GREEDY:
            continue
        votes.setdefault(problem_id, Counter())[key] += 1
        spellings.setdefault((problem_id, key), set()).add(row["predicted_answer"])
    most = {problem_id: max(counts.values()) for problem_id, counts in votes.items()}
    return {
        (problem_id, answer)
        for problem_id, counts in votes.items()
        for key, count in counts.items()
        if count == most[problem_id]
        for answer in spellings[problem_id, key]
    }


def _settle(
    folder: Path,
    manifest: Manifest,
    problems: dict[str, _Problem],
    done: KeySet,
    rows: _Rows,
    wanted: set[_Question] | None,
) -> dict[_Question, list[int]]:
    """Write the rows that need no model; return the other questions, with the samples each decides.

    wanted: the only answers to judge; None: all.
    """
    open_questions: dict[_Question, list[int]] = {}
    judged: dict[_Question, int] = {}
    for row in read_rows(folder / GRADES, manifest.grading_id):
        problem_id, sample = key_of(row)
        answer = row["predicted_answer"]
        if (problem_id, sample) in done:
            if answer is not None:
                judged.setdefault((problem_id, answer), sample)
        elif answer is None:
            rows.write(problem_id, [sample], _NO_ANSWER, False)
        elif wanted is not None and (problem_id, answer) not in wanted:
            continue
        elif _spelled(answer) == _spelled(problems[problem_id].expected_answer):
            rows.write(problem_id, [sample], _SAME_TEXT, True)
        else:
            open_questions.setdefault((problem_id, answer), []).append(sample)
    # Asked by an earlier call, for another sample: a killed one, or one before there were more samples.
    earlier = {(q[0], sample): q for q, sample in judged.items() if q in open_questions}
    if earlier:
        assert manifest.judging_id is not None
        for row in read_rows(folder / JUDGEMENTS, manifest.judging_id):
            if question := earlier.get(key_of(row)):
                samples = open_questions.pop(question)
                rows.write(question[0], samples, row["judgement"], row["judge_correct"])
    return open_questions


def _spelled(answer: str) -> str:
    return squeezed(normalize(answer))


def _ask(
    open_questions: dict[_Question, list[int]],
    problems: dict[str, _Problem],
    prompt: Prompt,
    judge: config.Judge,
    rows: _Rows,
) -> int:
    """Ask what the cache does not know; the number of questions that took."""
    assert judge.model
    sampling = config.Sampling(
        temperature=judge.temperature, top_p=1.0, tokens_to_generate=judge.tokens_to_generate
    )
    texts = {q: (*problems[q[0]], q[1]) for q in open_questions}
    scope = [judge.model, prompt.digest, judge.temperature, judge.tokens_to_generate]
    with Cache("judgements", scope) as cache:

        def request(question: _Question) -> Request:
            problem_id, answer = question
            fields = {**problems[problem_id]._asdict(), "predicted_answer": answer}
            return Request(key=question, prompt=prompt.messages(fields), sampling=sampling, seed=0)

        def settle(question: _Question, words: str) -> None:
            rows.write(question[0], open_questions[question], words, parse_verdict(words))

        def handle(reply: Reply) -> None:
            question = reply.request.key
            if reply.error is not None:
                rows.write(question[0], open_questions[question], f"not judged: {reply.error}", None)
                return
            words = reply.choices[0].text
            cache.put({texts[question]: words})
            settle(question, words)

        known = cache.get(texts.values())
        new = []
        for question, text in texts.items():
            if text in known:
                settle(question, known[text])
            else:
                new.append(question)
        ask(
            map(request, new),
            handle,
            address=judge.address,
            model=judge.model,
            client=judge.client,
            api_key_env=judge.api_key_env,
        )
    return len(new)


def _summary(folder: Path, part: str, asked: int) -> JudgeSummary:
    rows = skipped = yes = no = unparsable = 0
    for row in read_rows(folder / JUDGEMENTS, part):
        rows += 1
        skipped += row["judgement"] in (_NO_ANSWER, _SAME_TEXT)
        yes += row["judge_correct"] is True
        no += row["judge_correct"] is False
        unparsable += row["judge_correct"] is None
    return JudgeSummary(rows, asked, skipped, yes, no, unparsable)
