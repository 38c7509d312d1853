"""Blocking calls that somebody may stop waiting for."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Run a blocking call in a thread of its own, in the caller's context.

    The thread is a daemon: unlike one of a pool, a call that hangs for ever neither takes a place
    from the next one nor keeps the process (or an event loop) from ending.

    Args:
        call: What to run.
        name: The thread's name.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(context.run(call))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future
