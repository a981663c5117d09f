"""Full-ranking evaluation of given embeddings: this package beside RecBole and Cornac.

    python benchmarks/evaluation_peers.py path/to/yelp2018 \
        --recbole-python path/to/bin/python --cornac-python path/to/bin/python

Recall@20 and NDCG@20 of every test user over all items but the training items, by `evaluate_users`,
RecBole's `Trainer.evaluate` (full sort) and Cornac's `ranking_eval`. The three define both metrics alike:
NDCG's ideal has min(20, |held out|) hits. So values must agree to 1e-6, or the exit code is 1; what is
left of a difference is near ties, which float32 sums in another order can turn around, one user's 1e-3 or
so divided by all. Each runs in a process of its own, in the interpreter that has it. Embeddings are unit
rows, d = 64, of a short training, kept in the cache folder: who runs again measures the same ones.

RecBole counts its batches in scores, 4,096 by default, which is one user of a large catalogue; larger
batches are given to it too. Cornac goes user by user: it is given a uniform sample of them, in its row.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from evaluation_peers_run import K
from throughput_report import markdown_table, provenance

from adaptau_ext.data import Interactions, read_lightgcn
from adaptau_ext.evaluation import UserMetrics
from adaptau_ext.reference import unit_rows
from adaptau_ext.training import TrainConfig, Trainer

HERE = Path(__file__).parent
AGREEMENT = 1e-6
TRAINING: dict[str, Any] = {
    "epochs": 2, "batch_size": 8192, "n_negatives": 64, "lr": 1e-2, "protocol": "paper", "patience": None,
}  # fmt: skip


def prepare(data: Interactions, cache: Path, n_sampled: int) -> str:
    """Files for the contenders' processes; embeddings only once. Says what they are."""
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        scipy.sparse.save_npz(cache / f"{name}.npz", getattr(data, name))
    users = np.diff(data.test.indptr).nonzero()[0]
    sample = np.random.default_rng(0).choice(users, min(n_sampled or len(users), len(users)), False)
    np.save(cache / "sample.npy", np.sort(sample))
    path = cache / "embeddings.npz"
    if not path.exists():
        print("training embeddings", file=sys.stderr)
        trainer = Trainer(TrainConfig.model_validate(TRAINING), data)
        for _ in trainer.run():
            pass
        u, i = (unit_rows(rows).numpy() for rows in trainer.embeddings())
        np.savez(path, users=u, items=i)
    with np.load(path) as tables:
        dim = tables["items"].shape[1]
    epochs, negatives = TRAINING["epochs"], TRAINING["n_negatives"]
    return f"matrix factorisation, d = {dim}, {epochs} epochs of {negatives} negatives, unit rows"


def run(name: str, python: str, arguments: list[str], threads: int) -> dict[str, Any]:
    """The row of one contender."""
    command = [python, str(HERE / "evaluation_peers_run.py"), name, *arguments]
    count = str(threads)
    limits = {f"{library}_NUM_THREADS": count for library in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        command, env={**os.environ, **limits}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return {"failure": f"ended with {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def differences(row: dict[str, Any], cache: Path, sampled: bool) -> dict[str, float]:
    """Of a row's values from ours over the same users."""
    mine = UserMetrics.load(cache / "ours.npz")
    chosen = np.isin(mine.users, np.load(cache / "sample.npy")) if sampled else slice(None)
    return {
        name: abs(value - float(mine.values[f"{name}@{K}"][chosen].mean()))
        for name, value in row["values"].items()
    }


def markdown(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    cells = [
        ["contender", "users", "seconds", "users/s", "MiB", f"recall@{K}", f"NDCG@{K}", "difference"]
    ]
    for row in rows:
        if "failure" in row:
            cells.append([row["contender"], row["failure"], *[""] * 6])
            continue
        seconds, n = row["seconds"], row["n_users"]
        middle = statistics.median(seconds)
        cells.append(
            [
                f"{row['contender']} {row['version']}{row['how']}",
                f"{n:,}" + ("" if n == about["n_users"] else " sampled"),
                f"{middle:.2f} ({min(seconds):.2f} - {max(seconds):.2f}, {len(seconds)} x)",
                f"{n / middle:,.0f}",
                f"{row['rise_mib']:.0f}",
                *(f"{row['values'][name]:.6f}" for name in ("recall", "ndcg")),
                f"{max(row['differences'].values()):.0e}",
            ]
        )
    return (
        f"`{about['command']}`, commit {about['commit']}, {about['date']}: {about['cpu']}, level "
        f"{about['level']}, {about['threads']} threads, PyTorch {about['torch']}.\n\n"
        f"{about['data']}. Embeddings: {about['embeddings']}.\n\n"
        f"{markdown_table(cells)}\n"
        "Seconds: median (least - most, repetitions) of the evaluation alone, data and model being ready. "
        "MiB: the peak of resident memory in the first evaluation, above the level before it. Difference: "
        "the larger one of the two metrics, from this package's over the same users; what there is of it "
        "comes from near ties, scores a rounding of float32 apart.\n"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder with train.txt and test.txt")
    parser.add_argument("--recbole-python", default=sys.executable, help="interpreter with recbole")
    parser.add_argument("--cornac-python", default=sys.executable, help="interpreter with cornac")
    parser.add_argument("--recbole-batches", type=int, nargs="*", default=[0, 16, 64, 256],
                        help="users a batch; 0: its default")  # fmt: skip
    parser.add_argument("--cornac-users", type=int, default=8000, help="sample size; 0: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=Path, default=Path("runs/evaluation_peers"))
    parser.add_argument("--output", type=Path, default=HERE / "results")
    given = parser.parse_args(argv)
    if not given.data.is_dir():
        print(f"nothing measured: there is no folder {given.data}", file=sys.stderr)
        return 0
    data = read_lightgcn(given.data, cold_users="drop")
    n_users = int((np.diff(data.test.indptr) > 0).sum())
    about = provenance([]) | {
        "command": shlex.join(["python", "benchmarks/evaluation_peers.py", *(argv or sys.argv[1:])]),
        "threads": given.threads,
        "data": data.describe(),
        "n_users": n_users,
        "embeddings": prepare(data, given.cache, given.cornac_users),
    }
    sampled = 0 < given.cornac_users < n_users
    plans = [("adaptau_ext", sys.executable, "", [], False)]
    for batch in given.recbole_batches:
        how = f", {batch} users a batch" if batch else ", default batches"
        plans.append(("recbole", given.recbole_python, how, ["--batch", str(batch)], False))
    plans.append(("cornac", given.cornac_python, "", ["--sample"] if sampled else [], sampled))
    rows: list[dict[str, Any]] = []
    for name, python, how, extra, on_sample in plans:
        if any("failure" in row for row in rows if row["contender"] == name):
            continue  # it would fail again
        arguments = [str(given.cache), "--repeats", str(given.repeats), *extra]
        row = {"contender": name, "how": how, **run(name, python, arguments, given.threads)}
        if "failure" not in row:
            row["differences"] = differences(row, given.cache, on_sample)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"about": about, "rows": rows}, indent=1)
    (given.output / "evaluation_peers.json").write_text(text + "\n")
    (given.output / "evaluation_peers.md").write_text(markdown(rows, about))
    print(markdown(rows, about))
    apart = [row for row in rows for d in row.get("differences", {}).values() if d > AGREEMENT]
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
