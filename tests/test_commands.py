"""The `adaptau` command as people use it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import yaml
from typer.testing import CliRunner

from adaptau_ext import AdapTau, FittedModel, cli
from adaptau_ext.cli import train
from adaptau_ext.cli.processes import lost_process
from adaptau_ext.cli.signals import Terminated, interruptible
from adaptau_ext.data import load, synthetic
from adaptau_ext.training import EpochResult, TrainConfig, Trainer
from adaptau_ext.training.finished import FinishedRun
from adaptau_ext.training.run import Run

KILLS = int(os.environ.get("ADAPTAU_KILLS", "3"))  # each costs a start of Python and PyTorch
QUICK = ("dim=8", "n_negatives=16", "batch_size=256", "lr=0.02", "epochs=3", "threads=1")


def adaptau(*words: object) -> tuple[int, str]:
    """Exit code and output of a command."""
    result = CliRunner().invoke(cli.app, [str(w) for w in words], env={"COLUMNS": "300"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def _threads(restore_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ratings.csv of 60 users and 80 items, ids of words."""
    data = synthetic(0, n_users=60, n_items=80, n_tastes=4, mean_items=20)
    users, items = (part.numpy() for part in data.pairs())
    frame = pd.DataFrame(
        {"user_id": [f"user {u}" for u in users], "item_id": [f"item {i}" for i in items]}
    )
    frame["rating"] = np.random.default_rng(0).integers(1, 6, len(frame))
    path = tmp_path_factory.mktemp("log") / "ratings.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(log: Path) -> Path:
    """A finished run on it."""
    folder = log.parent / "runs" / "adaptive"
    code, text = adaptau("train", f"data={log}", *QUICK, "min_rating=2", f"output={folder}")
    assert code == 0, text
    assert "rated 2 or more" in text and "settings: min_rating=2" in text
    return folder


def ids_of(model: FittedModel) -> tuple[pa.Array, pa.Array]:
    return model.user_ids, model.item_ids


def test_from_a_file_to_recommendations(log: Path, run: Path, tmp_path: Path) -> None:
    for name in ("all.csv", "all.parquet", "all.tsv"):
        code, text = adaptau("recommend", run, "-k", 4, "-o", tmp_path / name)
        assert code == 0 and f"recommendations in {tmp_path / name}" in text
    tables = [
        pd.read_csv(tmp_path / "all.csv"),
        pd.read_csv(tmp_path / "all.tsv", sep="\t"),
        pyarrow.parquet.read_table(tmp_path / "all.parquet").to_pandas(),
    ]
    for table in tables:
        assert list(table.columns) == ["user", "rank", "item", "score"]
        assert (table.item == tables[0].item).all() and (table.user == tables[0].user).all()
    model = FittedModel.load(run / "model")
    users, items = (ids.take(n) for ids, n in zip(ids_of(model), model.seen.nonzero(), strict=True))
    seen = set(zip(users.to_pylist(), items.to_pylist(), strict=True))
    found = pd.read_csv(log)
    known = set(zip(found.user_id[found.rating >= 2], found.item_id[found.rating >= 2], strict=True))
    assert seen < known  # train and valid
    assert not seen & set(zip(tables[0].user, tables[0].item, strict=True))
    code, _ = adaptau("recommend", run, "-k", 4, "-o", tmp_path / "seen.csv", "--include-seen")
    table = pd.read_csv(tmp_path / "seen.csv")
    assert code == 0 and seen & set(zip(table.user, table.item, strict=True))
    (tmp_path / "ids.txt").write_text("user 3\nuser 5\n")
    code, text = adaptau("recommend", run, "--users", tmp_path / "ids.txt", "-k", 4)
    assert code == 0
    for item in tables[0][tables[0].user.isin(["user 3", "user 5"])].item:
        assert item in text


def test_evaluate_repeats_what_training_found(run: Path, tmp_path: Path) -> None:
    code, text = adaptau("evaluate", run, "-k", 20, "-k", 7, "-o", tmp_path / "users.csv")
    assert code == 0
    found = json.loads((run / "results.json").read_text())
    assert f"{found['test']['recall@20']:.4f}" in text and "popular and rare items" in text
    users = pd.read_csv(tmp_path / "users.csv")
    assert users["recall@20"].mean() == pytest.approx(found["test"]["recall@20"])
    assert "recall@7" in users and users.user.str.startswith("user ").all()
    for share in found["groups"]["recall@20"]:
        assert f" {share:.4f} " in text
    beyond = [value for name, value in found["beyond"].items() if name.endswith("@20")]
    assert beyond and all(f" {value:.4g} " in text for value in beyond)


def test_numbers_chosen_on_test_come_with_a_warning(log: Path, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "paper"
    code, text = adaptau("train", f"data={log}", *QUICK, "protocol=paper", f"output={folder}")
    assert code == 0 and "the epoch is chosen on the test items" in text
    assert "without effect" not in text
    assert "the epoch was chosen on these items" in adaptau("evaluate", folder)[1]
    assert "chosen on" not in adaptau("evaluate", run)[1]


def test_settings_without_effect_are_named(log: Path, tmp_path: Path) -> None:
    """As a recipe's or a file's may be, beside another temperature."""
    words = ("recipe=gowalla-mf", "tau=0.2", "epochs=1", f"data={log}", f"output={tmp_path}")
    code, text = adaptau("train", *words, "margin=0.3", "threads=1")
    assert code == 0 and "without effect beside the others: t1, t2, margin" in text


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"n_layers": 2, "noise_by": "user", "negatives": "full", "n_negatives": 8}, "n_layers noise_by n_negatives"),
        ({"model": "lightgcn", "n_layers": 2, "noise": 0.1, "noise_by": "user"}, ""),
        ({"tau": 0.1, "mode": "paper", "variance": True, "warmup_epochs": 3}, "mode warmup_epochs variance"),
        ({"rating_column": "stars", "time_column": "when"}, "rating_column time_column"),
        ({"rating_column": "stars", "min_rating": 3, "time_column": "when", "split": "leave_one_out", "test_fraction": 0.1}, "test_fraction"),
        ({"variance": True}, "variance"),  # the warm-up is as long as training
        ({"variance": True, "warmup_epochs": 10}, ""),
        ({"tau": "weight_v0", "t1": 0.5, "t2": 2.0, "mode": "paper"}, "t1 t2"),
        ({"tau": "weight_mean", "t1": 0.5, "t2": 2.0}, "t1"),
        ({"tau": "weight_ratio", "t1": 0.5, "t2": 2.0, "tau_lr": 0.1}, "tau_lr"),
        ({"tau": "learned", "initial_tau": 0.2, "tau_lr": 0.1}, ""),
        ({"positive_tau": 0.2, "margin": 0.1, "negative_weight": 2.0, "gamma": 2.0}, "positive_tau margin negative_weight gamma"),
        ({"loss": "bsl", "tau": 0.1, "positive_tau": 0.2}, ""),
        ({"loss": "ccl", "margin": 0.1, "negative_weight": 2.0}, ""),
        ({"loss": "direct_au", "gamma": 2.0}, ""),
    ],
    ids=str,
)  # fmt: skip
def test_idle_settings(settings: dict[str, Any], idle: str) -> None:
    assert TrainConfig.model_validate(settings).idle == idle.split()


def test_changed_data_is_noticed(log: Path, tmp_path: Path) -> None:
    """One row more draws another split: what was trained on would be test."""
    data, folder = tmp_path / "ratings.csv", tmp_path / "run"
    text = log.read_text()
    data.write_text(text)
    words = ("train", f"data={data}", *QUICK[:-2], "epochs=2", "threads=1", f"output={folder}")
    assert adaptau(*words)[0] == 0
    kept = (folder / "results.json").read_bytes()
    data.write_text(text + "user 3,a new item,5\n")
    for epochs in (2, 5):
        code, said = adaptau(*(f"epochs={epochs}" if word == "epochs=2" else word for word in words))
        assert code == 2 and "holds a run on other data than" in said
    code, said = adaptau("evaluate", folder)
    assert code == 2 and "has changed since" in said
    assert (folder / "results.json").read_bytes() == kept
    data.write_text(text)
    assert adaptau(*words)[0] == adaptau("evaluate", folder)[0] == 0


def test_a_run_that_goes_on_for_longer_is_not_done(log: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("train", f"data={log}", *QUICK[:-2], "patience=none", "threads=1", f"output={folder}")
    assert adaptau(*words, "epochs=2")[0] == 0
    config, results = ((folder / name).read_bytes() for name in ("config.json", "results.json"))
    code, said = adaptau(*words, "epochs=1")
    assert code == 2 and "holds a run of 2 epochs, more than epochs=1; choose another output" in said
    assert (folder / "config.json").read_bytes() == config  # as it was
    assert (folder / "results.json").read_bytes() == results
    longer = FinishedRun.read(folder).config.model_copy(update={"epochs": 4})
    events = Run(Trainer(longer, load(log)), folder).events()
    assert isinstance(next(events), torch.Tensor)
    events.close()
    code, said = adaptau("report", folder)
    assert code == 2 and "the run is not done" in said
    assert adaptau(*words, "epochs=4")[0] == 0
    assert FinishedRun.read(folder).results["last_epoch"] == 3


def test_ids_and_paths_are_no_markup(log: Path, tmp_path: Path) -> None:
    names = {3: "b4 [live]", 4: "[unknown]", 5: "x[/y]"}
    data = pd.read_csv(log)
    data["item_id"] = [names.get(int(i.removeprefix("item ")), i) for i in data["item_id"]]
    data.to_csv(tmp_path / "ratings.csv", index=False)
    folder = tmp_path / "r[exp]x"
    code, text = adaptau("train", f"data={tmp_path / 'ratings.csv'}", *QUICK, f"output={folder}")
    assert code == 0 and f"The run is in {folder}/: adaptau recommend {folder}" in text
    code, text = adaptau("recommend", folder, "--user", "user 1", "-k", 80)
    assert code == 0
    wanted = set(names.values()) - set(data["item_id"][data["user_id"] == "user 1"])
    assert wanted and all(f" {name} " in text for name in wanted)
    (tmp_path / "users.txt").write_text("user 1\n", encoding="utf-8-sig")
    for form, message in (("utf-8-sig", "user 1 "), ("utf-16", "users.txt: not readable")):
        (tmp_path / "users.txt").write_text("user 1\n", encoding=form)
        assert message in adaptau("recommend", folder, "--users", tmp_path / "users.txt")[1]


def test_columns_that_nobody_asked_for_are_not_read(log: Path, tmp_path: Path) -> None:
    rows = log.read_text().splitlines()
    broken = [f"{rows[0]},date", f"{rows[1]},5/28/2026", *(f"{row}," for row in rows[2:])]
    broken[5] = broken[5].rpartition(",")[0].rpartition(",")[0] + ",N/A,"
    data = tmp_path / "ratings.csv"
    data.write_text("\n".join(broken) + "\n")
    code, text = adaptau("train", f"data={data}", *QUICK, f"output={tmp_path / 'run'}")
    assert code == 0, text
    code, text = adaptau("train", f"data={data}", "split=temporal", f"output={tmp_path / 'late'}")
    assert code == 2 and "date must hold numbers or dates" in text
    AdapTau(epochs=1, dim=4, n_negatives=4).fit(pd.read_csv(data))


def test_temperatures_without_a_solution_are_told(log: Path, tmp_path: Path) -> None:
    words = (f"data={log}", "dim=1", "epochs=2", "warmup_epochs=0", f"output={tmp_path / 'early'}")
    code, text = adaptau("train", *words, "seed=7", "split_seed=7")
    assert code == 2 and "train longer with warmup_epochs > 0" in text
    dense = tmp_path / "dense.csv"
    rows = [f"{user},{item}" for user in range(12) for item in range(10) if (user + item) % 5]
    dense.write_text("\n".join(["user,item", *rows]) + "\n")
    code, text = adaptau("train", f"data={dense}", f"output={tmp_path / 'dense'}")
    assert code == 2 and "fewer than half of all user-item pairs" in text


def test_export_writes_what_was_asked_for(run: Path, tmp_path: Path) -> None:
    code, text = adaptau("export", run, "numpy", "parquet", "-o", tmp_path)
    assert code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "users.npy", "items.npy", "user_ids.npy", "item_ids.npy", "users.parquet", "items.parquet",
    }  # fmt: skip
    assert str(tmp_path / "users.npy") in text


def test_settings_come_from_files_and_words(log: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 1e-4\nks: [5, 9]\nmodel: lightgcn\n")
    (tmp_path / "a.toml").write_text('lr = 1e-4\nks = [5, 9]\nmodel = "lightgcn"\n')
    shown = [
        adaptau("train", tmp_path / f"a.{kind}", "lr=0.5", "--show-config")[1]
        for kind in ("yaml", "toml")
    ]
    assert shown[0] == shown[1]
    settings = yaml.safe_load(shown[0])
    assert (settings["lr"], settings["ks"], settings["negatives"]) == (0.5, [5, 9], "in_batch")
    (tmp_path / "again.yaml").write_text(shown[0])
    assert adaptau("train", tmp_path / "again.yaml", "--show-config")[1] == shown[0]


def test_settings_in_files_are_as_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"

    def shown(text: str, *words: str) -> dict[str, Any]:
        path.write_text(text)
        settings: dict[str, Any] = yaml.safe_load(adaptau("train", path, *words, "--show-config")[1])
        return settings

    assert shown("ks: 10,20")["ks"] == shown("ks: [10, 20]")["ks"] == [10, 20]
    assert shown("ks: 20")["ks"] == [20]
    text = "min_rating: 4\nt2: 0.5\nrecipe: gowalla-mf\n"
    assert (shown(text)["min_rating"], shown(text)["t2"], shown(text)["t1"]) == (4, 0.5, 0.9)
    back = shown(text, "min_rating=none", "t2=none", "recipe=none")
    assert (back["min_rating"], back["t2"], back["t1"]) == (None, None, 1.0)
    assert shown("patience: 3", "patience=none")["patience"] is None
    path.write_text("lr: 1e-3\nlr: 1e-2\n")
    code, said = adaptau("train", path)
    assert code == 2 and "lr is given twice; keep one" in said


def test_the_built_in_data_is_split_already() -> None:
    code, text = adaptau("train", "k_core=5")
    assert code == 2 and "the built-in data set is split already: k_core would have no effect" in text


def test_tensorboard(log: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    code, text = adaptau("train", f"data={log}", *QUICK, f"output={tmp_path / 'r'}", "--tensorboard")
    assert code == 0, text
    events = accumulator.EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    found = [event.value for event in events.Scalars("metrics/recall@20")]
    assert found == pytest.approx([line["metrics"]["recall@20"] for line in lines])
    loss = re.search(r"epoch +0 +loss ([\d.]+)", text)  # a batch's mean, as the line says
    assert loss and events.Scalars("loss")[0].value == pytest.approx(float(loss[1]), abs=1e-4)


def test_doctor_and_bench() -> None:
    code, text = adaptau("doctor")
    assert code == 0 and "equals its definition" in text
    assert str(torch.ops.adaptau.cpu_level()) in text and torch.__version__ in text
    code, text = adaptau("bench", "--users", 32, "--items", 100, "--negatives", 8, "--repeat", 1)
    assert code == 0
    rows = re.findall(r"│ ([a-z0-9, -]+?) +│ ([\d.]+) +│ ([\d.]+) +│ ([\d.]+) +│", text)
    assert [row[0] for row in rows] == ["loss, whole catalogue", "loss, sampled", "top-20"]


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "recommend", "export", "report", "bench", "doctor", "fetch"]
)
def test_help_teaches_by_examples(command: str) -> None:
    code, text = adaptau(command, "--help")
    assert code == 0 and "Example" in text and f"adaptau {command}" in text


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_comes_out_of_code_that_makes_another_error_of_it(
    number: signal.Signals, kind: type[KeyboardInterrupt]
) -> None:
    before = signal.getsignal(number)

    @interruptible()
    def wrapped() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as end:
            raise ValueError("error serializing to JSON") from end

    @interruptible()
    def wrong() -> None:
        raise ValueError("its own")

    with pytest.raises(kind) as caught:
        wrapped()
    assert caught.type is kind and signal.getsignal(number) is before
    with pytest.raises(ValueError, match="its own"):
        wrong()


def test_a_signal_does_not_cut_short_what_is_said_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun sends one as soon as it sees what this process has seen itself."""

    def lost(run: Run, log: Callable[[EpochResult], None]) -> None:
        raise RuntimeError("Gloo: connection closed by peer")

    def terminated_meanwhile(problem: RuntimeError) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return lost_process(problem)

    monkeypatch.setattr(train, "_follow", lost)
    monkeypatch.setattr(train, "lost_process", terminated_meanwhile)
    code, text = adaptau("train", f"output={tmp_path / 'run'}")
    assert code == 2 and "another process of this run has stopped, 0 epochs are kept" in text


def start(*words: object, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from adaptau_ext.cli import main; main()", *map(str, words)]
    return subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ},
    )


def timeless(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("_seconds")} for line in lines]


def same_runs(first: Path, second: Path) -> None:
    assert timeless(first) == timeless(second)
    models = [torch.load(folder / "model.pt", weights_only=True) for folder in (first, second)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    for name in ("users.parquet", "items.parquet"):
        assert (first / "model" / name).read_bytes() == (second / "model" / name).read_bytes()


def test_interrupted_says_how_to_go_on_and_does(log: Path, tmp_path: Path) -> None:
    words = ("train", f"data={log}", *QUICK, "epochs=30")
    words = tuple(w for w in words if w != "epochs=3")
    whole = start(*words, "output=whole", cwd=tmp_path)
    process = start(*words, "output=parts", cwd=tmp_path)
    path = tmp_path / "parts" / "metrics.jsonl"
    while not (path.exists() and path.read_text().count("\n") >= 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in text
    assert "output=parts goes on from there" in " ".join(text.split())
    assert start(*words, "output=parts", cwd=tmp_path).wait(120) == 0
    assert whole.wait(120) == 0
    same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_killed_at_any_moment_loses_at_most_an_epoch(log: Path, tmp_path: Path, model: str) -> None:
    words = (
        "train",
        f"data={log}",
        *(w for w in QUICK if w != "epochs=3"),
        "epochs=40",
        f"model={model}",
    )
    assert start(*words, "output=whole", cwd=tmp_path).wait(120) == 0
    rng, path = np.random.default_rng(0), tmp_path / "parts" / "metrics.jsonl"
    kept = 0
    for _ in range(KILLS):
        process = start(*words, "output=parts", cwd=tmp_path)
        wanted = kept + int(rng.integers(1, 4))
        while process.poll() is None:
            done = path.read_text().count("\n") if path.exists() else 0
            if done >= wanted:
                break
            time.sleep(0.005)
        time.sleep(float(rng.random()) * 0.03)  # somewhere within the epoch, or while it is written
        process.kill()
        process.wait()
        seen = path.read_text().count("\n")
        checkpoint = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
        kept = len(checkpoint["results"])
        assert kept >= min(wanted, seen)
    assert start(*words, "output=parts", cwd=tmp_path).wait(120) == 0
    same_runs(tmp_path / "whole", tmp_path / "parts")
