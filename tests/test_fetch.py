"""Downloads, from a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adaptau_ext import cli
from adaptau_ext.data import DataError, load
from adaptau_ext.data import fetch as fetching

from .conftest import real_data

pytest.importorskip("pooch")
FILES = {"train.txt": b"0 1 2\n1 0 2\n", "test.txt": b"0 0\n1 1\n"}


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; remembers what was asked for."""

    asked: list[str]


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path / "served"
    (folder / "gowalla").mkdir(parents=True)
    for name, content in FILES.items():
        (folder / "gowalla" / name).write_bytes(content)
    one = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    one.asked = []
    thread = threading.Thread(target=one.serve_forever)
    thread.start()
    yield one, folder
    one.shutdown()
    thread.join()
    one.server_close()


def address(one: Server) -> str:
    return f"http://127.0.0.1:{one.server_port}/{{name}}/{{file}}"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """gowalla is FILES."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setitem(fetching.SHA256, "gowalla", digests)


@pytest.mark.usefixtures("small")
def test_fetched_once_and_readable(server: tuple[Server, Path], tmp_path: Path) -> None:
    one, _ = server
    words = ["fetch", "gowalla", "--to", str(tmp_path / "data"), "--source", address(one)]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert one.asked == ["/gowalla/train.txt", "/gowalla/test.txt"]
    assert load(tmp_path / "data" / "gowalla").train.nnz == 4
    assert CliRunner().invoke(cli.app, words).exit_code == 0
    assert len(one.asked) == 2  # nothing is downloaded again
    (tmp_path / "data" / "gowalla" / "train.txt").write_bytes(b"0 1\n")  # damaged: again
    assert CliRunner().invoke(cli.app, words).exit_code == 0
    assert one.asked[2:] == ["/gowalla/train.txt"]


@pytest.mark.usefixtures("small")
def test_other_content_and_missing_files_are_refused(
    server: tuple[Server, Path], tmp_path: Path
) -> None:
    one, folder = server
    (folder / "gowalla" / "test.txt").write_bytes(b"0 1\n")
    with pytest.raises(DataError, match=r"test.txt: SHA256 hash .*does not match"):
        fetching.fetch("gowalla", tmp_path, source=address(one))
    assert not (tmp_path / "gowalla" / "test.txt").exists()
    (folder / "gowalla" / "test.txt").unlink()
    with pytest.raises(DataError, match=r"test.txt: 404"):
        fetching.fetch("gowalla", tmp_path, source=address(one))


@pytest.mark.parametrize("name", list(fetching.SHA256))
def test_published_files_have_the_digests(name: str) -> None:
    folder = real_data(name)
    for file, digest in fetching.SHA256[name].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest
