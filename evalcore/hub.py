"""Datasets of the Hugging Face hub, through its own client (the extra ``hub``).

    found = fetch(Source(hub="openai/gsm8k", config="main"), "test", {"question", "answer"}, "gsm8k")
    found.revision                # the commit it is of
    next(found.rows)["answer"]    # '… #### 18'

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and the proxy variables are the client's own and honoured.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from evalcore.benchmarks import Source
from evalcore.errors import BenchmarkError


class HubRows(NamedTuple):
    """revision: the commit the rows are of."""

    revision: str
    rows: Iterator[dict[str, Any]]


def fetch(source: Source, split: str, columns: set[str], benchmark: str) -> HubRows:
    """The rows of a hub dataset, with the named columns only.

    Only those columns are decoded: others may be images, which need more libraries.

    Raises:
        BenchmarkError: the client is not installed, the hub is out of reach, the dataset is gated or
            not there, or it lacks the config, the split or a column.
    """
    # Read by the client when it is imported. It counts loads by a request of its own otherwise.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    instead = f"evalcore prepare {benchmark} --source FILE"
    try:
        import datasets
        import huggingface_hub
        from huggingface_hub import errors
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise BenchmarkError(
            f"benchmark {benchmark}: the hub's client is not installed ({error.name}): "
            f"pip install 'evalcore[hub]', or run `{instead}`"
        ) from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        disable_progress_bars()
    assert source.hub is not None
    wanted = source.split or split
    what = f"benchmark {benchmark}: dataset {source.hub}"
    gated = False
    try:
        info = huggingface_hub.HfApi().dataset_info(source.hub, revision=source.revision)
        gated = bool(info.gated)
        # By address, since a local folder of that name would go before the hub. By commit, not branch: the
        # files then agree with each other and with what is recorded.
        address = f"hf://datasets/{source.hub}"
        found = datasets.load_dataset(address, source.config, split=wanted, revision=info.sha)
    except errors.RevisionNotFoundError as error:
        raise BenchmarkError(f"{what}: no revision {source.revision!r}") from error
    except errors.GatedRepoError as error:
        raise _gated(what, source.hub) from error
    except errors.RepositoryNotFoundError as error:
        raise BenchmarkError(f"{what}: not on the hub, or private; if private, set HF_TOKEN") from error
    except datasets.exceptions.DatasetNotFoundError as error:
        # The dataset is there, as its description was just read: it is the files that are refused.
        if gated:
            raise _gated(what, source.hub) from error
        raise BenchmarkError(f"{what}: {_first_line(error)}") from error
    except ValueError as error:
        # An unknown config or split, or a data format; the client's message lists what there is.
        raise BenchmarkError(f"{what}: {_first_line(error)}") from error
    except (*errors.HfHubHTTPError.__bases__, datasets.exceptions.DatasetsError, RuntimeError) as error:
        # Those bases are OSError and the error of whichever HTTP library this version of the client uses.
        raise BenchmarkError(
            f"{what}: cannot be fetched from {huggingface_hub.constants.ENDPOINT} ({_first_line(error)}); run "
            f"`evalcore prepare {benchmark}` where the hub can be reached, or `{instead}`"
        ) from error
    if missing := sorted(columns - set(found.column_names)):
        raise BenchmarkError(
            f"{what}: no column {', '.join(map(repr, missing))}; there are: {', '.join(found.column_names)}"
        )
    return HubRows(str(info.sha), iter(found.select_columns(sorted(columns))))


def _gated(what: str, repo: str) -> BenchmarkError:
    return BenchmarkError(
        f"{what} is gated: accept its terms at https://huggingface.co/datasets/{repo} "
        "and set HF_TOKEN to a token of that account"
    )


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
