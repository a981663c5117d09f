"""The report: what it says, and what a browser shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from adaptau_ext import cli, durable
from adaptau_ext.evaluation import UserMetrics, compare

matplotlib_image = pytest.importorskip("matplotlib.image")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIGURES = ("curves", "groups", "temperatures", "magnitudes", "times")
BLUE, ORANGE = (0x2F, 0x7F, 0xD1), (0xD9, 0x82, 0x2B)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs of the same data, `<fixed>` and `adaptive`."""
    root = tmp_path_factory.mktemp("report")
    before = torch.get_num_threads()
    for name, tau in (("<fixed>", "0.2"), ("adaptive", "weight_mean")):
        words = ["train", f"tau={tau}", "dim=8", "n_negatives=16", "lr=0.02", "epochs=3", "threads=1"]
        result = CliRunner().invoke(cli.app, [*words, f"output={root / name}"])
        assert result.exit_code == 0, result.output
    torch.set_num_threads(before)
    return [root / "<fixed>", root / "adaptive"]


@pytest.fixture(scope="module")
def page(runs: list[Path]) -> Path:
    path = runs[0].parent / "page.html"
    result = CliRunner().invoke(cli.app, ["report", *map(str, runs), "-o", str(path)])
    assert result.exit_code == 0, result.output
    return path


class Seen(HTMLParser):
    """Tables, figures' labels, ids and addresses of a page; fails if tags do not match."""

    VOID = ("meta", "link", "br", "path", "use", "rect", "line", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.labels: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids += [v for k, v in attributes if k == "id" and v]
        self.addresses += [v for k, v in attributes if k in ("src", "href", "xlink:href") and v]
        if tag == "svg":
            self.labels.append(values.get("aria-label") or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "link", "br"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_tables_are_what_the_runs_found(runs: list[Path], page: Path) -> None:
    seen = Seen(page.read_text())
    for folder in runs:
        results = json.loads((folder / "results.json").read_text())
        for k in (10, 20, 50):
            (row,) = (r for r in seen.rows if r[:2] == [folder.name, str(k)])
            names = ("recall", "ndcg", "precision", "hit", "mrr", "map")
            assert row[2:] == [f"{results['test'][f'{name}@{k}']:.4f}" for name in names]
    tests = {t.metric: t for t in compare(*(UserMetrics.load(f / "users.npz") for f in runs))}
    (row,) = (r for r in seen.rows if r[0] == "ndcg@20" and len(r) == 6)
    assert row[1:3] == [f"{tests['ndcg@20'].first:.4f}", f"{tests['ndcg@20'].second:.4f}"]
    p = tests["ndcg@20"].t_p
    assert row[4] == (f"{p:.2g}" if p >= 1e-4 else "< 0.0001")
    assert ["tau", "0.2", "weight_mean"] in seen.rows


def test_page_is_complete_in_itself(page: Path) -> None:
    text = page.read_text()
    seen = Seen(text)
    assert len(seen.labels) == len(FIGURES) and all(seen.labels)
    assert len(set(seen.ids)) == len(seen.ids)  # figures do not take each other's parts
    for address in seen.addresses:
        assert address == "data:," or address.lstrip("#") in seen.ids
    assert not re.search(r"url\((?!#)|@import|<script", text)
    for reference in re.findall(r"url\(#([^)]*)\)", text):
        assert reference in seen.ids
    assert "&lt;fixed&gt;" in text and "<fixed>" not in text
    assert len(text) < 500_000


def test_runs_that_cannot_be_compared_say_why(runs: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    users = UserMetrics.load(other / "users.npz")
    others = UserMetrics(users.users, users.values, users.held_out + 1)  # of another split
    durable.write_sealed(other / "users.npz", others.save)
    path = tmp_path / "page.html"
    result = CliRunner().invoke(cli.app, ["report", str(runs[0]), str(other), "--output", str(path)])
    assert result.exit_code == 0
    assert "first and second must be of the same users and held-out items" in path.read_text()


def test_names_are_no_formulas(runs: list[Path], tmp_path: Path) -> None:
    names = ("$a_$", "_hidden")
    for name, run in zip(names, runs, strict=True):
        shutil.copytree(run, tmp_path / name)
    words = ["report", *(str(tmp_path / name) for name in names), "-o", str(tmp_path / "page.html")]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "page.html").read_text("utf-8")
    for name in names:  # in five figures' legends, too
        assert text.count(name) >= len(FIGURES) + 1


def test_runs_without_a_diagnostic_are_left_out_of_its_figure(runs: list[Path], tmp_path: Path) -> None:
    """As those with tables split over processes."""
    bare = tmp_path / "bare"
    shutil.copytree(runs[0], bare)
    lines = [json.loads(line) for line in (bare / "metrics.jsonl").read_text().splitlines()]
    (bare / "metrics.jsonl").write_text(
        "".join(json.dumps({**line, "diagnostics": {}}) + "\n" for line in lines)
    )
    for words, figures in (
        ((bare,), set(FIGURES) - {"temperatures", "magnitudes"}),
        ((bare, runs[1]), set(FIGURES)),
    ):
        out = tmp_path / "page.html"
        result = CliRunner().invoke(cli.app, ["report", *map(str, words), "-o", str(out)])
        assert result.exit_code == 0, result.output
        assert len(Seen(out.read_text("utf-8")).labels) == len(figures)


def test_paper_protocol_is_warned_of(runs: list[Path], page: Path, tmp_path: Path) -> None:
    assert "chosen on the test items" not in page.read_text()
    copy = tmp_path / "paper"
    shutil.copytree(runs[1], copy)
    results = json.loads((copy / "results.json").read_text())
    (copy / "results.json").write_text(json.dumps({**results, "selected_on": "test"}))
    assert CliRunner().invoke(cli.app, ["report", str(copy)]).exit_code == 0
    text = (copy / "report.html").read_text()
    assert "chosen on the test items" in text and "recall@20, test items" in text
    both = tmp_path / "both.html"
    words = ["report", str(runs[0]), str(copy), "--output", str(both)]
    assert CliRunner().invoke(cli.app, words).exit_code == 0
    text = " ".join(both.read_text().split())
    assert "paper: epochs were chosen on the test items" in text
    assert "The epoch of paper was chosen on these items, that of the other was not" in text
    assert "&lt;fixed&gt;, valid" in text and "paper, test" in text and "recall@20, valid" not in text


def test_runs_with_other_cut_offs(runs: list[Path], tmp_path: Path) -> None:
    """What all have is compared."""
    words = ["train", "tau=0.2", "dim=8", "n_negatives=16", "lr=0.02", "epochs=1", "threads=1"]
    for name, ks in (("near", "5,10"), ("far", "100")):
        result = CliRunner().invoke(cli.app, [*words, f"ks={ks}", f"output={tmp_path / name}"])
        assert result.exit_code == 0, result.output
    page = tmp_path / "page.html"
    words = ["report", str(runs[0]), str(tmp_path / "near"), "--output", str(page)]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    shown = Seen(page.read_text())
    tests = [row[0] for row in shown.rows if len(row) == 6 and "@" in row[0]]
    assert tests and all(metric.endswith("@10") for metric in tests)
    assert "recall@10 and loss over epochs" in shown.labels
    result = CliRunner().invoke(cli.app, ["report", str(runs[0]), str(tmp_path / "far")])
    assert result.exit_code == 2
    assert "<fixed> has ks=10,20,50, far has ks=100" in " ".join(result.output.split())


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_browser_shows_figures_in_light_and_dark(page: Path, tmp_path: Path) -> None:
    brightness = {}
    for theme, flags in (("light", ()), ("dark", ("--force-dark-mode",))):
        picture = tmp_path / f"{theme}.png"
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / theme}", "--enable-logging=stderr", "--window-size=1100,4300",
            *flags, f"--screenshot={picture}", page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert "CONSOLE" not in done.stderr
        pixels = np.round(255 * matplotlib_image.imread(picture)[:, :, :3]).astype(int)
        brightness[theme] = pixels.mean()
        for colour in (BLUE, ORANGE):  # bars and lines of both runs
            assert (np.abs(pixels - colour).max(2) <= 8).sum() > 5000
        # every figure has ink: text and axes as dark, or as bright, as the page's own
        ink = (pixels.max(2) < 70) if theme == "light" else (pixels.min(2) > 200)
        assert ink.sum() > 20_000
    assert brightness["light"] > 200 and brightness["dark"] < 60
