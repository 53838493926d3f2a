"""Channels of alerts: whatever Apprise can reach, by the URLs in an Airflow Connection of the apprise provider.

>>> for channel in channels("team_slack"):
...     channel.send(message)

The provider's own notifier does not tell whether a message was taken; here an error says that it was not. A URL holds
its secret, and neither an error nor a log has any of it: not Apprise's nor that of the libraries it calls.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from airflow.providers.apprise.hooks.apprise import AppriseHook
from airflow.sdk.exceptions import AirflowException
from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType
from apprise.url import URLBase

from evalcore.errors import EvalError

if TYPE_CHECKING:
    from apprise import AppriseResult
    from apprise.plugins.base import NotifyBase

    from evalcore.alert import Message

_SECONDS = 60.0
"""For one message, on top of what its service allows for a request."""
_ANSWER_SECONDS = 30.0
"""For an answer, where a URL says nothing else (``rto=``). After Apprise's own 4 s a message that a slow service has
taken would count as lost, and be sent again at each retry."""
_LOGGERS = ("apprise", "urllib3", "requests")
_EXAMPLE = '{"config": {"path": "slack://…"}}'


class ChannelError(EvalError):
    """A channel that cannot be used, or did not take a message. Names the Connection, never its URL."""


@dataclass(frozen=True)
class Channel:
    """One URL. name: the Connection's, with a number where it has several URLs."""

    name: str
    _service: NotifyBase | None = field(repr=False)
    _url: str = field(repr=False)

    def send(self, message: Message) -> None:
        """Returns when the channel has taken the message. ChannelError if it has not, or its URL cannot be used."""
        if self._service is None:
            raise ChannelError(f"{self.name}: its URL is none that Apprise can use")
        kind, body = _body(self._service, message)
        sender = Apprise(self._service, asset=_asset())
        with _kept_quiet():
            result = sender.notify(
                title=message.title,
                body=body,
                body_format=kind,
                notify_type=NotifyType.FAILURE,
                timeout=_SECONDS,
            )
            if not result:
                raise ChannelError(f"{self.name}: {_without(self._url, _reason(result))}")


def channels(connection_id: str) -> list[Channel]:
    """The channels of a Connection, in its order. ChannelError if it is missing, or none of Apprise's.

    A URL that cannot be used is a channel that takes nothing, so that the others are told all the same.
    """
    hook = AppriseHook(connection_id)
    try:
        written = hook.get_config_from_conn(hook.get_connection(connection_id))
        urls = [entry["path"] for entry in (written if isinstance(written, list) else [written])]
    except AirflowException as error:
        raise ChannelError(f"{connection_id}: {error}") from None
    except (KeyError, TypeError, ValueError):
        raise ChannelError(
            f"{connection_id}: a Connection of type apprise with extra {_EXAMPLE} is needed"
        ) from None
    found: list[tuple[NotifyBase | None, str]] = []
    for url in urls:
        services = Apprise(asset=_asset())
        with _kept_quiet():
            is_whole = isinstance(url, str) and services.add(url) and len(services) > 0
        found += [(service, url) for service in services] if is_whole else [(None, "")]
    for service, _ in found:
        if service is not None and service.socket_read_timeout == URLBase.socket_read_timeout:
            service.socket_read_timeout = _ANSWER_SECONDS
    if not found:
        raise ChannelError(f"{connection_id}: it has no URL; its extra needs {_EXAMPLE}")
    names = [connection_id, *(f"{connection_id} {number}" for number in range(2, len(found) + 1))]
    return [Channel(name, *it) for name, it in zip(names, found, strict=True)]


def _body(service: NotifyBase, message: Message) -> tuple[NotifyFormat, str]:
    """What of the message the service shows as it is, so that nothing is converted."""
    bodies = {
        NotifyFormat.MARKDOWN: message.markdown,
        NotifyFormat.HTML: message.html,
        NotifyFormat.TEXT: message.text,
    }
    kind = next(kind for kind in bodies if service.resolve_format(kind) == kind)
    return kind, bodies[kind]


def _asset() -> AppriseAsset:
    # As what services show as the sender. Nothing is kept on disk. No redirect is followed: a POST becomes a GET on
    # the way, and whatever page answers that would count as the message taken.
    return AppriseAsset(
        app_id="evalcore",
        app_desc="Checkpoint evaluation",
        app_url="",
        storage_mode="memory",
        http_redirects=False,
    )


@contextmanager
def _kept_quiet() -> Iterator[None]:
    """What these libraries log (URLs, answers) reaches nobody; Apprise's result still has it.

    After an error they stay quiet: a message that was given up may still be on its way, in a thread of Apprise's.
    """
    silent = logging.NullHandler()  # without any, Python would print warnings itself
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(silent)
        logger.propagate = False
    yield
    for logger, propagated in zip(loggers, before, strict=True):
        logger.removeHandler(silent)
        logger.propagate = propagated


def _reason(result: AppriseResult) -> str:
    """The last that Apprise said of it, on one line."""
    said = [" ".join(entry.message.split()) for entry in result.logs()]
    return said[-1][:300] if said else "not taken, and it does not say why"


def _without(url: str, text: str) -> str:
    """A text without any part of a URL but its scheme."""
    parts = {part for part in re.split(r"[\s:/?#@&=,]+", url.partition("://")[2]) if len(part) > 3}
    for part in sorted(parts | {unquote(part) for part in parts}, key=len, reverse=True):
        text = text.replace(part, "***")
    return text
