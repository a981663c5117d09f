"""One contender of evaluation_peers.py in its own process, for its own interpreter: needs NumPy and SciPy.

    python benchmarks/evaluation_peers_run.py recbole CACHE --repeats 3 --batch 256

The data and embeddings are those that evaluation_peers.py left in the folder. What a library makes of
them before it evaluates (its data set, its loader, its model) is not timed. One line of JSON comes out:
seconds of each repetition, the rise of resident memory in the first, the values, versions.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from peak_memory import rise_mib

K = 20
ONCE_ABOVE = 15.0  # seconds, from which an evaluation is not repeated
Values = dict[str, float]  # of "recall" and "ndcg"


class Inputs:
    """Unit rows of users and items, train and test as CSR; `users`: those to evaluate."""

    def __init__(self, cache: Path, all_users: bool) -> None:
        self.cache = cache
        with np.load(cache / "embeddings.npz") as tables:
            self.u, self.i = tables["users"], tables["items"]
        self.train, self.test = (scipy.sparse.load_npz(cache / f"{x}.npz") for x in ("train", "test"))
        self.users = np.diff(self.test.indptr).nonzero()[0]
        if not all_users:
            self.users = np.load(cache / "sample.npy")


def ours(given: Inputs, batch: int) -> Callable[[], Values]:
    import torch

    from adaptau_ext.evaluation import evaluate_users

    u, i = torch.from_numpy(given.u), torch.from_numpy(given.i)

    def run() -> Values:
        evaluation = evaluate_users(u, i, given.test, exclude=given.train, ks=(K,))
        evaluation.save(given.cache / "ours.npz")
        return {name: evaluation.means()[f"{name}@{K}"] for name in ("recall", "ndcg")}

    return run


def recbole(given: Inputs, batch: int) -> Callable[[], Values]:
    """Its BPR with the embeddings as weights, its full-sort loader, `Trainer.evaluate`."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import BPR
    from recbole.trainer import Trainer

    name, (n_items, dim) = "given", given.i.shape
    folder = given.cache / name
    folder.mkdir(exist_ok=True)
    train, test = (np.stack(csr.nonzero(), axis=1) for csr in (given.train, given.test))
    # RecBole wants a validation part: the first training pair, so that both together are train
    for part, pairs in {"train": train[1:], "valid": train[:1], "test": test}.items():
        path = folder / f"{name}.{part}.inter"
        header = "user_id:token\titem_id:token"
        np.savetxt(path, pairs, "%d", delimiter="\t", header=header, comments="")
    settings = {
        "data_path": str(given.cache),
        "benchmark_filename": ["train", "valid", "test"],
        "checkpoint_dir": str(folder),
        "embedding_size": dim,
        "metrics": ["Recall", "NDCG"],
        "topk": [K],
        "valid_metric": f"Recall@{K}",
        "metric_decimal_place": 12,
        "use_gpu": False,
        "show_progress": False,
    }
    if batch:
        settings["eval_batch_size"] = batch * (n_items + 1)  # in scores; it counts a padding item
    config = Config(model="BPR", dataset=name, config_dict=settings)
    dataset = create_dataset(config)
    loader = data_preparation(config, dataset)[2]
    model = BPR(config, dataset)
    if dataset.item_num != n_items + 1:  # candidates, a padding item too
        raise ValueError(
            f"RecBole knows {dataset.item_num - 1} of {n_items} items: some are in no part"
        )
    for table, rows, field in (
        (model.user_embedding, given.u, "user_id"),
        (model.item_embedding, given.i, "item_id"),
    ):
        ids = dataset.field2id_token[field][1:].astype(int)
        table.weight.data[1:] = torch.from_numpy(rows[ids])
    trainer = Trainer(config, model)

    def run() -> Values:
        found = trainer.evaluate(loader, load_best_model=False)
        return {name: float(found[f"{name}@{K}"]) for name in ("recall", "ndcg")}

    return run


def cornac(given: Inputs, batch: int) -> Callable[[], Values]:
    """Its MF with the embeddings as factors, without biases, and `ranking_eval`."""
    from cornac.data import Dataset
    from cornac.eval_methods.base_method import ranking_eval
    from cornac.metrics import NDCG, Recall
    from cornac.models import MF

    ids = [{n: n for n in range(size)} for size in given.train.shape]
    users, items = given.test.nonzero()
    chosen = np.isin(users, given.users)
    train, test = (
        Dataset.build([(u, i, 1.0) for u, i in zip(*pairs, strict=True)], "UIR", *ids)
        for pairs in (given.train.nonzero(), (users[chosen], items[chosen]))
    )
    factors = {"U": given.u, "V": given.i}
    model = MF(k=given.i.shape[1], use_bias=False, trainable=False, init_params=factors).fit(train)

    def run() -> Values:
        recall, ndcg = ranking_eval(model, [Recall(k=K), NDCG(k=K)], train, test)[0]
        return {"recall": float(recall), "ndcg": float(ndcg)}

    return run


CONTENDERS = {"adaptau_ext": ours, "recbole": recbole, "cornac": cornac}


def measured(name: str, given: Inputs, batch: int, repeats: int) -> dict[str, Any]:
    run = CONTENDERS[name](given, batch)
    seconds: list[float] = []
    values: list[Values] = []

    def once() -> None:
        start = time.perf_counter()
        values.append(run())
        seconds.append(time.perf_counter() - start)

    rise = rise_mib(once)
    for _ in range(repeats - 1 if seconds[0] < ONCE_ABOVE else 0):
        once()
    return {
        "version": importlib.import_module(name).__version__,
        "python": platform.python_version(),
        "n_users": len(given.users),
        "seconds": seconds,
        "rise_mib": rise,
        "values": values[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="users; 0: the library's default")
    parser.add_argument("--sample", action="store_true", help="the users of sample.npy")
    given = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads it too
    with contextlib.redirect_stdout(sys.stderr):
        try:
            inputs = Inputs(given.cache, not given.sample)
            result = measured(given.contender, inputs, given.batch, given.repeats)
        except ModuleNotFoundError as gone:
            result = {"failure": f"not installed ({gone})"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
