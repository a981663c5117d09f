"""One MF epoch with Adap-tau beside the same epoch in gather-style PyTorch, and peak memory.

    python benchmarks/epoch.py path/to/gowalla

The gather-style step is what published code does: item rows gathered to [B, N, d], normalised,
multiplied with the users by bmm, the same loss, temperatures, dropout and Adam. Steps of both alternate
in one run; an epoch is the number of batches times the median step. Peak memory is that of a fresh
process each.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from peak_memory import rise_mib

from adaptau_ext.data import Interactions, read_lightgcn, synthetic
from adaptau_ext.recipes import RECIPES
from adaptau_ext.training import TrainConfig, Trainer


def gather_step(trainer: Trainer, users: torch.Tensor, items: torch.Tensor) -> None:
    """`Trainer.step` with plain PyTorch operations."""
    config, model = trainer.config, trainer.model
    rows = torch.nn.functional.dropout(model.user_table[users], config.dropout)
    negatives = torch.randint(trainer.data.n_items, (users.numel(), config.n_negatives))
    u = torch.nn.functional.normalize(rows, dim=1)
    positive = torch.nn.functional.normalize(model.item_table[items], dim=1)
    negative_rows = model.item_table[negatives]  # [B, N, d]
    scores = torch.bmm(torch.nn.functional.normalize(negative_rows, dim=2), u[:, :, None])[..., 0]
    positive_score = (u * positive).sum(1)
    softmax = -positive_score * trainer.temperature.inv_tau0 + torch.logsumexp(
        scores / trainer.temperature.of(users)[:, None], dim=1
    )
    unit_loss = (-positive_score + torch.logsumexp(scores, dim=1)).detach()
    norms = (rows**2).sum() + (model.item_table[items] ** 2).sum() + (negative_rows**2).sum()
    loss = softmax.mean() + config.l2 / users.numel() * norms / 2
    trainer.optimizer.zero_grad()
    loss.backward()
    trainer.optimizer.step()
    trainer.temperature.record(users, unit_loss)


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def make_trainer(data: Interactions, **changes: object) -> Trainer:
    recipe = {**RECIPES["gowalla-mf"], "epochs": 1, **changes}
    return Trainer(TrainConfig.model_validate(recipe), data)


def time_steps(data: Interactions, rounds: int, fused_steps: int) -> dict[str, float]:
    fused, gather = make_trainer(data), make_trainer(data)
    for trainer in (fused, gather):
        trainer.temperature.start_epoch(0, *trainer.model.embeddings())
    batches = fused.batches()
    seconds: dict[str, list[float]] = {"fused": [], "gather": []}
    fused.step(*next(batches))  # warm-up
    for _ in range(rounds):
        for name, step, repeats in (
            ("fused", fused.step, fused_steps),
            ("gather", lambda *batch: gather_step(gather, *batch), 1),
        ):
            for _ in range(repeats):
                batch = next(batches)
                start = time.perf_counter()
                step(*batch)
                seconds[name].append(time.perf_counter() - start)
    step_seconds = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "batches_an_epoch": fused.n_batches,
        "fused_step_ms": step_seconds["fused"] * 1e3,
        "gather_step_ms": step_seconds["gather"] * 1e3,
        "fused_epoch_s": step_seconds["fused"] * fused.n_batches,
        "gather_epoch_s": step_seconds["gather"] * fused.n_batches,
        "ratio": step_seconds["gather"] / step_seconds["fused"],
        "fused_steps": len(seconds["fused"]),
        "gather_steps": len(seconds["gather"]),
    }


def measure_memory(data: Interactions, batch_size: int, n_negatives: int) -> dict[str, float]:
    """Rise of resident memory during a trainer's first steps and one evaluation."""
    trainer = make_trainer(data, batch_size=batch_size, n_negatives=n_negatives)
    trainer.temperature.start_epoch(0, *trainer.model.embeddings())
    batches = trainer.batches()

    def ten_steps() -> None:
        for _ in range(10):
            trainer.step(*next(batches))

    tables = sum(p.numel() * 4 / 2**20 for p in trainer.model.parameters())
    return {
        "batch_size": batch_size,
        "n_negatives": n_negatives,
        "training_mib": rise_mib(ten_steps),
        "gradients_and_adam_mib": 3 * tables,
        "evaluation_mib": rise_mib(trainer.evaluate),
        "B_x_N_mib_of_floats": batch_size * n_negatives * 4 / 2**20,
        "B_x_N_x_d_mib_of_floats": batch_size * n_negatives * trainer.config.dim * 4 / 2**20,
        "users_x_items_mib_of_floats": data.n_users * data.n_items * 4 / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help='a LightGCN-format folder, or "synthetic"')
    parser.add_argument("--rounds", type=int, default=5, help="gather-style steps")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data = synthetic() if arguments.data == "synthetic" else read_lightgcn(arguments.data)
    if arguments.memory_of:
        batch_size, n_negatives = map(int, arguments.memory_of.split(","))
        print(json.dumps(measure_memory(data, batch_size, n_negatives)))
        return
    results = {
        "command": "python benchmarks/epoch.py " + " ".join([Path(arguments.data).name]),
        "data": data.describe(),
        "cpu": cpu_name(),
        "level": torch.ops.adaptau.cpu_level(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "time": time_steps(data, arguments.rounds, fused_steps=20),
        "memory": [
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, arguments.data, "--memory-of", f"{b},{n}"],
                    check=True, capture_output=True, text=True,
                ).stdout
            )
            for b, n in ((2048, 256), (2048, 1024), (2048, 4096), (8192, 1024))
        ],
    }  # fmt: skip
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
