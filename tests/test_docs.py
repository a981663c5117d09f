"""What the pages show runs, prints what they say, and leads where they say.

On every page (README.md and docs/*.md), in a folder of its own:

    ```python                    is executed, block by block in one namespace
    ```text                      right after it: what it prints; ... stands for anything
    ```yaml title="a.yaml"       is a file of that name; ratings.csv is there without being shown
    ```sh                        adaptau's commands have to parse; those of quickstart.md are run

A block that imports a package which is not there is skipped.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from adaptau_ext import cli
from adaptau_ext.data import synthetic
from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
RUN = ("quickstart.md",)
BLOCK = re.compile(
    r"^```(?P<language>\w*) *(?:title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.M | re.S
)
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
ASK_NOBODY = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?https?://[^\s>]*")


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    title: str | None
    text: str
    printed: str | None  # what the page says that it prints


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in BLOCK.finditer(text):
        is_output = match["language"] == "text" and not text[end : match.start()].strip()
        if is_output and found and found[-1].language == "python" and found[-1].printed is None:
            last = found.pop()
            found.append(Block(last.line, last.language, last.title, last.text, match["text"]))
        else:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(line, match["language"], match["title"], match["text"], None))
        end = match.end()
    return found


def commands(script: str) -> Iterator[list[str]]:
    """The words of each command of a shell script."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True, posix=True)
        while "&&" in words:
            place = words.index("&&")
            yield words[:place]
            words = words[place + 1 :]
        if words:
            yield words


@dataclass
class Session:
    """A page that is being read."""

    page: Path
    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    done: int = 0

    def __post_init__(self) -> None:
        data = synthetic(0, n_users=60, n_items=80, n_tastes=4, mean_items=12)
        rows = [f"reader {u},book {i},{3 + i % 3}" for u, i in zip(*data.pairs(), strict=True)]
        (self.folder / "ratings.csv").write_text("\n".join(["user_id,item_id,rating", *rows]) + "\n")
        for block in blocks(self.page):
            if block.title:
                (self.folder / block.title).write_text(block.text)

    def read_to(self, line: int) -> None:
        """Runs what is not done yet, up to the block in this line."""
        for block in blocks(self.page):
            if self.done < block.line <= line:
                self.done = block.line
                self._run(block, wanted=block.line == line)

    def _run(self, block: Block, *, wanted: bool) -> None:
        if block.language == "sh" and self.page.name in RUN:
            for words in commands(block.text):
                if words[0] == "adaptau":
                    run(words[1:])
        if block.language != "python":
            return
        if reason := missing(block.text):
            if wanted:
                pytest.skip(reason)
            return
        code = compile("\n" * block.line + block.text, str(self.page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.names)
        if block.printed is not None:
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            said, found = block.printed, printed.getvalue()
            assert doctest.OutputChecker().check_output(said, found, options), found


def run(words: list[str]) -> str:
    result = CliRunner().invoke(cli.app, words, env={"COLUMNS": "200"})
    if "pip install" in result.output and result.exit_code == 2:
        pytest.skip(result.output)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, f"adaptau {' '.join(words)}: {result.output}"
    return result.output


def missing(code: str) -> str | None:
    """Why a block cannot run here: a package that it imports cannot be."""
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for name in names:
            package = name.partition(".")[0]
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed"
            try:
                importlib.import_module(name)
            except Exception as problem:  # other projects', that do not keep up with their requirements
                if package == "adaptau_ext":
                    raise
                return f"{name} is installed but cannot be imported: {problem}"
    return None


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def cases(*languages: str) -> list[Any]:
    return [
        pytest.param(page, block, id=f"{name(page)}:{block.line}")
        for page in PAGES
        for block in blocks(page)
        if block.language in languages
    ]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Session]:
    return {page: Session(page, tmp_path_factory.mktemp(page.stem)) for page in PAGES}


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("page", "block"), cases("python"))
def test_python(
    page: Path, block: Block, sessions: dict[Path, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sessions[page].folder)
    sessions[page].read_to(block.line)


@pytest.mark.parametrize(("page", "block"), cases("sh"))
def test_commands(
    page: Path, block: Block, sessions: dict[Path, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sessions[page].folder)
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in commands(block.text):
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):  # the command's environment
            words = words[1:]
        if words[0] == "adaptau" and "--help" not in words:
            command, *rest = words[1:]
            assert command in known, f"adaptau has no command {command}"
            known[command].make_context(command, list(rest))
            if command == "train":
                for settings in (word for word in rest if word.endswith(".yaml")):
                    Path(settings).touch()  # where the page does not show it
                run([command, *rest, "--show-config"])
        elif words[:2] == ["pip", "install"]:
            for wanted in re.findall(r"(?:\.|adaptau_ext)\[([^\]]+)\]", " ".join(words)):
                assert not set(wanted.split(",")) - set(extras), wanted
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), words[1]
    if page.name in RUN:
        sessions[page].read_to(block.line)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name(page)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(path), f"{name(page)} links to {link}: no such heading"


def anchors(page: Path) -> set[str]:
    headings = HEADING.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in headings}


def test_command_line_page_is_what_the_commands_say() -> None:
    """Whoever changes a command runs docs/site/commands.py."""
    path = ROOT / "docs" / "site" / "commands.py"
    spec = importlib.util.spec_from_file_location("site_commands", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == module.page(), "run python docs/site/commands.py"
    for command in module.COMMANDS:
        said = set(re.findall(r"--[a-z][a-z-]+", run([command, "--help"]))) - {
            "--help",
            "--nproc-per-node",
        }  # torchrun's
        section = page.partition(f"## adaptau {command}\n")[2].partition("\n## ")[0]
        assert said == set(re.findall(r"--[a-z][a-z-]+", section)), command


def test_site_builds(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install '.[docs]'")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not ASK_NOBODY.search(text), page
        assert "arithmatex" not in text, f"{page}: a formula was left as it is"
