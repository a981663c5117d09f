"""Files as they should be, and with bytes changed: strategies for the targets of readers."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st

from adaptau_ext.errors import InputError
from tests.fuzz.target import refused

PIECES = (b"\x00", b"\xff", b"\n", b",", b"\t", b'"', b"-1", b"nan", b"1e999", b"99999999999999999999", b"\r",
          b"\xef\xbb\xbf", b"\xc3", b" ", b"[", b"{", b"null", b"PAR1", b"PK\x03\x04", b"\x80\x02c")  # fmt: skip
edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "cut", "repeat", "swap"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.sampled_from(PIECES), st.binary(min_size=1, max_size=8)),
    ),
    max_size=4,
)


def edited(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes after each change at its place, a share of the length."""
    for kind, share, piece in changes:
        at = int(share * len(content))
        if kind == "set":
            content = content[:at] + piece + content[at + len(piece) :]
        elif kind == "insert":
            content = content[:at] + piece + content[at:]
        elif kind == "delete":
            content = content[:at] + content[at + len(piece) :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "repeat":
            content = content[:at] + content[at // 2 :]
        else:  # swap
            content = content[at:] + content[:at]
    return content


def file(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[str]:
    """Bytes of a file, whole or edited, as text that JSON can keep."""
    changed = st.builds(edited, whole, st.one_of(st.just([]), edits))
    return changed.map(lambda content: base64.b64encode(content).decode())


@contextmanager
def written(files: dict[str, str]) -> Iterator[Path]:
    """A folder of these files."""
    with TemporaryDirectory(prefix="fuzz") as temporary:
        folder = Path(temporary, "data")
        folder.mkdir()
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content))
        yield folder


# What no reader of data has any business to do.
_FORBIDDEN = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
_SHELLS = ("os", "posix", "nt", "subprocess", "eval", "exec")  # modules and functions
_watched: list[list[str]] = []


def _hook(event: str, arguments: Any) -> None:
    unpickles = event == "pickle.find_class" and bool({*arguments} & {*_SHELLS})
    if _watched and (event in _FORBIDDEN or unpickles):
        _watched[-1].append(event)


sys.addaudithook(_hook)


def read(reader: Callable[[], str]) -> str:
    """What came of a reader: its own word, or an error of the package's own kinds; nothing is executed."""
    events: list[str] = []
    _watched.append(events)
    try:
        outcome = reader()
    except InputError as problem:
        outcome = refused(problem)
    finally:
        _watched.pop()
    assert not events, events
    return outcome
