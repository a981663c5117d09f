"""Several processes on this machine give what one process gives."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import distributed_traffic
import pytest
import torch
import torch.distributed as dist
from typer.testing import CliRunner

from adaptau_ext import FittedModel, cli
from adaptau_ext.data import synthetic

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="PyTorch was built without Gloo")
HERE = Path(__file__).parent  # not the root: its adaptau_ext may lack the compiled half
CHECKS = ("in_batch", "sharded_softmax", "topk", "ranks")


def launch(world: int, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """`torchrun` on this machine, at any free port."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={world}",
    ]
    return subprocess.run(
        [*command, *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("world", [1, 2, 4])
def test_parts_together_are_the_whole(world: int) -> None:
    done = launch(world, str(HERE / "distributed_checks.py"), *CHECKS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [word for name in CHECKS for word in (name, "passed")]


def test_traffic_is_what_the_formulas_say() -> None:
    rows = distributed_traffic.launch(2, ["--rows=33", "--items=200", "--repeats=1"])
    assert [row["operation"] for row in rows] == list(distributed_traffic.FORMULAS)
    for row in rows:
        assert row["sent"] == row["formula"] > 0, row


QUICK = (
    "train", "dim=8", "n_negatives=16", "batch_size=250", "lr=0.02", "l2=0.01", "warmup_epochs=2", "epochs=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 60 users and 80 items."""
    made_up = synthetic(0, n_users=60, n_items=80, n_tastes=4, mean_items=20)
    lines = (
        f"{user},{item}" for user, item in zip(*(x.tolist() for x in made_up.pairs()), strict=True)
    )
    path = tmp_path_factory.mktemp("distributed") / "log.csv"
    path.write_text("\n".join(["user,item", *lines]) + "\n")
    return path


def alone(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adaptau_ext", *words],
        capture_output=True, text=True, check=False, timeout=300, cwd=HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def here(*words: str) -> None:
    """As `alone`, in this process: it need not start."""
    done = CliRunner().invoke(cli.app, list(words))
    assert done.exit_code == 0, done.output


def epochs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_training(ours: Path, expected: Path) -> None:
    """Up to the order of sums: losses, temperatures, metrics, and what is recommended."""
    for a, b in zip(epochs(ours), epochs(expected), strict=True):
        for name in ("loss_sum", "inv_tau0", "inv_tau_min", "inv_tau_max"):
            assert a[name] == pytest.approx(b[name], rel=1e-5)
        assert a["metrics"] == pytest.approx(b["metrics"], abs=1e-9)
    models = [FittedModel.load(folder / "model") for folder in (ours, expected)]
    for name in ("user_embeddings", "item_embeddings"):
        first, second = (getattr(model, name) for model in models)
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", ["model=lightgcn", "negatives=in_batch tau=0.2", "negatives=full"])
def test_processes_share_batches(data: Path, tmp_path: Path, settings: str) -> None:
    words = (*QUICK, f"data={data}", *settings.split())
    alone(*words, f"output={tmp_path / 'one'}")
    done = launch(3, "-m", "adaptau_ext", *words, f"output={tmp_path / 'three'}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Full ranking") == 1  # one speaks
    same_training(tmp_path / "three", tmp_path / "one")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
@pytest.mark.parametrize("shard", ["false", "true"])
def test_processes_end_without_threads_of_their_group(data: Path, tmp_path: Path, shard: str) -> None:
    """One that lets go of a tensor while Python ends aborts the process, now and then."""
    words = (*QUICK, f"data={data}", "negatives=full", f"shard={shard}", f"output={tmp_path / 'run'}")
    done = launch(2, str(HERE / "rank_ends.py"), *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("threads left: []") == 2


def test_tables_are_split_and_resumed_on_another_number_of_processes(
    data: Path, tmp_path: Path
) -> None:
    words = (*QUICK, f"data={data}", "negatives=full", "variance=true")
    alone(*words, f"output={tmp_path / 'one'}")
    shard = (*words, "shard=true", f"output={tmp_path / 'split'}")
    for world, until in ((3, "epochs=2"), (1, "epochs=3"), (2, "epochs=4")):
        done = launch(world, "-m", "adaptau_ext", *(w for w in shard if w != "epochs=4"), until)
        assert done.returncode == 0, done.stderr[-3000:]
    same_training(tmp_path / "split", tmp_path / "one")
    states = [torch.load(tmp_path / name / "model.pt") for name in ("split", "one")]
    for name, whole in states[1].items():
        assert torch.allclose(states[0][name], whole, rtol=1e-3, atol=1e-4)
    here("report", str(tmp_path / "split"), str(tmp_path / "one"))
    page = (tmp_path / "split" / "report.html").read_text("utf-8")
    assert page.count("<h2>Temperatures</h2>") == 1  # of the one that has them

    (part,) = list((tmp_path / "split" / "checkpoint").glob("shard-00001*"))
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    refused = launch(2, "-m", "adaptau_ext", *(w for w in shard if w != "epochs=4"), "epochs=5")
    assert refused.returncode != 0
    assert re.search(r"error: .*shard-00001.* changed since it was written", refused.stderr)
    assert "Traceback" not in refused.stderr.partition("error:")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("loss=direct_au", "tau=1"), "compares all rows of a batch: one process only"),
        (("shard=true",), "shard=true needs negatives=full, got sampled"),
    ],
)
def test_what_processes_cannot_share_is_refused(
    data: Path, words: tuple[str, ...], message: str
) -> None:
    done = launch(2, "-m", "adaptau_ext", *QUICK, f"data={data}", *words)
    assert done.returncode != 0 and message in " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, over the catalogue."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    here(*QUICK, f"data={data}", "negatives=full", f"output={folder}")
    return folder


# in the third of four epochs; an epoch has 3 steps
DEATHS = {
    "a step of 4, split tables": (4, ("2", "step", "8"), True),
    "a step of 2": (2, ("1", "step", "8"), False),
    "a checkpoint that 2 write": (2, ("1", "part", "3"), True),
    "a checkpoint that the first writes": (2, ("0", "whole", "3"), False),
}


@pytest.mark.parametrize("death", list(DEATHS))
def test_a_killed_process_ends_the_others_and_the_run_goes_on(
    data: Path, tmp_path: Path, uninterrupted: Path, death: str
) -> None:
    world, how, split = DEATHS[death]
    words = (*QUICK, f"data={data}", "negatives=full", f"output={tmp_path / 'run'}")
    words = (*words, "shard=true") if split else words
    started = time.monotonic()
    killed = launch(world, str(HERE / "rank_dies.py"), *how, *words)
    assert killed.returncode != 0 and time.monotonic() - started < 120
    told = " ".join((killed.stdout + killed.stderr).split())
    why = "another process of this run has stopped|interrupted"  # by its loss, or torchrun was faster
    assert re.search(rf"({why}), 2 epochs are kept; the same command", told)
    assert len(epochs(tmp_path / "run")) == 2
    if split:
        done = launch(2, "-m", "adaptau_ext", *words)
        assert done.returncode == 0, done.stderr[-3000:]
    else:
        here(*words)
    same_training(tmp_path / "run", uninterrupted)
    assert not list((tmp_path / "run").glob("*.part"))


def test_sigterm_ends_all_processes_and_says_what_is_kept(data: Path, tmp_path: Path) -> None:
    words = (*(w for w in QUICK if w != "epochs=4"), f"data={data}", "negatives=full", "patience=none")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.Popen(
        [*command, "-m", "adaptau_ext", *words, "epochs=100000", f"output={tmp_path / 'run'}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HERE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    path = tmp_path / "run" / "metrics.jsonl"
    while not (path.exists() and path.read_text().count("\n") >= 2):
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)  # torchrun hands it on
    text, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert re.search(
        r"epochs are kept; the same command with output=\S+/run goes on", " ".join(text.split())
    )
    assert len(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["results"]) >= 2
