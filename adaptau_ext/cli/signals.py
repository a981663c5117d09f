"""How a command is asked to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which schedulers and torchrun ask for what people ask for by Ctrl-C."""


def exit_code(end: KeyboardInterrupt) -> int:
    """128 and the signal's number, as shells have it."""
    return 128 + (signal.SIGTERM if isinstance(end, Terminated) else signal.SIGINT)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, SIGTERM raises Terminated, and they come out as what they are:
    compiled code that calls Python turns them into errors of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    asked: list[KeyboardInterrupt] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        raise asked[-1]

    heard = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
        heard.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    except Exception:
        if asked:
            raise asked[-1] from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
