"""How a command is asked to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which schedulers and torchrun ask for what people ask for by Ctrl-C."""


def exit_code(end: KeyboardInterrupt) -> int:
    """128 and the signal's number, as shells have it."""
    return 128 + (signal.SIGTERM if isinstance(end, Terminated) else signal.SIGINT)


@contextmanager
def _answered_by(answer: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    """Ctrl-C and SIGTERM, for so long."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    heard = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
        heard.append(signal.SIGINT)
    before = {number: signal.signal(number, answer) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, SIGTERM raises Terminated, and they come out as what they are:
    compiled code that calls Python turns them into errors of its own."""
    asked: list[KeyboardInterrupt] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        raise asked[-1]

    with _answered_by(stop):
        try:
            yield
        except Exception:
            if asked:
                raise asked[-1] from None
            raise


def uninterrupted() -> AbstractContextManager[None]:
    """Ctrl-C and SIGTERM are not heard: torchrun sends one as soon as another process is gone, while
    this one may be telling why it ends."""
    return _answered_by(signal.SIG_IGN)
