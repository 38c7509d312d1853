"""Channels of the process: log records, standard output and error, warnings.

They are watched while the other channels run.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from langchain_safeguard.testing.channels import Channel
from langchain_safeguard.testing.transcript import Transcript

PROCESS_CHANNELS = tuple(
    Channel(name, "process", speaks=False) for name in ("logging", "stdout", "stderr", "warnings")
)

_OURS = ("sse_starlette", "httpx", "httpcore")
"""Loggers of the HTTP server and client that the LangServe channels bring along. At DEBUG they
repeat each chunk; it is reported where it was sent already."""


class Watch:
    """Watches the process while `running` names what is going on."""

    def __init__(self, transcripts: dict[str, Transcript]) -> None:
        """Note into these transcripts; a channel that is not among them is not watched."""
        self._transcripts = transcripts
        self.running = ""

    def note(self, channel: str, kind: str, value: object) -> None:
        """Note one thing that came out of the process."""
        with self._transcripts[channel].attempt(self.running) as see:
            see(kind, value)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Watch until the block ends."""
        with contextlib.ExitStack() as stack:
            if "stdout" in self._transcripts:
                tee: Any = _Tee(sys.stdout, "stdout", self)
                stack.enter_context(contextlib.redirect_stdout(tee))
            if "stderr" in self._transcripts:
                tee = _Tee(sys.stderr, "stderr", self)
                stack.enter_context(contextlib.redirect_stderr(tee))
            if "logging" in self._transcripts:
                stack.enter_context(_logging_to(self))
            stack.enter_context(self._warnings())
            yield

    @contextlib.contextmanager
    def _warnings(self) -> Iterator[None]:
        # Always recorded, so that a project that turns warnings into errors can use the kit:
        # old and new event protocols of langchain-core warn when they are called.
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            # Noted as they are shown, so that the report can say what was running.
            warnings.showwarning = self._on_warning
            yield

    def _on_warning(self, message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        if "warnings" in self._transcripts:
            self.note("warnings", category.__name__, str(message))


class _Tee(io.TextIOBase):
    """Notes what is written and passes it on."""

    def __init__(self, through: TextIO, channel: str, watch: Watch) -> None:
        self._through = through
        self._channel = channel
        self._watch = watch

    def write(self, text: str) -> int:
        self._watch.note(self._channel, "text", text)
        return self._through.write(text)

    def flush(self) -> None:
        self._through.flush()

    def isatty(self) -> bool:
        return self._through.isatty()

    def fileno(self) -> int:
        return self._through.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._through.encoding

    def __getattr__(self, name: str) -> Any:
        # What some libraries use besides, such as `buffer`, is not watched, but works.
        return getattr(self._through, name)


class _Listener(logging.Handler):
    """Notes every record: its message as formatted, and the exception it carries."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.DEBUG)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in _OURS:
            return
        try:
            message = record.getMessage()
        except Exception:  # a record whose arguments do not fit is a record, too
            message = str(record.msg)
        self._watch.note("logging", record.name, {"message": message, "args": record.args})
        if record.exc_info and record.exc_info[1]:
            self._watch.note("logging", f"{record.name} exception", [record.exc_info[1]])


class _AsBefore(logging.Filter):
    """Keeps records that were not wanted before from the handlers that were there before."""

    def __init__(self) -> None:
        super().__init__()
        self._root = logging.root.level
        self._levels = {name: logger.getEffectiveLevel() for name, logger in _loggers().items()}

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._levels.get(record.name, self._root)


def _loggers() -> dict[str, logging.Logger]:
    known = logging.root.manager.loggerDict.items()
    return {name: each for name, each in known if isinstance(each, logging.Logger)}


@contextlib.contextmanager
def _logging_to(watch: Watch) -> Iterator[None]:
    """Listen to every logger at DEBUG; everybody else goes on hearing what they heard before."""
    listener, as_before = _Listener(watch), _AsBefore()
    loggers = [logging.root, *_loggers().values()]
    # Only these levels and doors stand in a record's way; the rest inherits from them.
    levels = [(each, each.level) for each in loggers if each.level > logging.DEBUG]
    doors = [each for each in loggers if each is logging.root or not each.propagate]
    handlers = [handler for each in loggers for handler in each.handlers]
    disabled = logging.root.manager.disable
    for handler in handlers:
        handler.addFilter(as_before)
    for each, _ in levels:
        each.setLevel(logging.DEBUG)
    for each in doors:
        each.addHandler(listener)
    logging.disable(logging.NOTSET)
    try:
        yield
    finally:
        logging.disable(disabled)
        for each in doors:
            each.removeHandler(listener)
        for each, level in levels:
            each.setLevel(level)
        for handler in handlers:
            handler.removeFilter(as_before)
