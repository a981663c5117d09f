"""Training: the loss is the documented one, runs repeat, models learn, the command works."""

from __future__ import annotations

import copy
import json
import math
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from adaptau_ext import cli, reference, reorder
from adaptau_ext.data import Interactions, read_lightgcn, synthetic
from adaptau_ext.dropout import draw_seed, steps_of
from adaptau_ext.errors import ConfigError, DataError, TrainingError
from adaptau_ext.evaluation import evaluate
from adaptau_ext.models import MF, LightGCN
from adaptau_ext.temperature import Temperature
from adaptau_ext.training import EpochResult, TrainConfig, Trainer
from adaptau_ext.training.run import Run
from tests.conftest import real_data


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    """The tensors are small: threads would cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small() -> Interactions:
    return synthetic(0, n_users=300, n_items=400, n_tastes=10, mean_items=30)


def config(**changes: object) -> TrainConfig:
    defaults = {"protocol": "paper", "batch_size": 512, "n_negatives": 64, "dim": 16, "epochs": 5}
    return TrainConfig.model_validate({**defaults, "lr": 5e-3, **changes})


def results(config: TrainConfig, data: Interactions) -> list[EpochResult]:
    return [event for event in Trainer(config, data).run() if isinstance(event, EpochResult)]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_one_step_is_the_published_loss(small: Interactions, dropout: float) -> None:
    """Same seed, same negatives and dropout; loss and gradients against plain float64 PyTorch."""
    settings = config(tau="weight_mean", l2=0.1, dropout=dropout)
    trainer = Trainer(settings, small)
    trainer.temperature.inv_tau += torch.rand(small.n_users)
    users, items = next(trainer.batches())
    state = trainer.generator.get_state()
    before = {name: p.detach().double() for name, p in trainer.model.named_parameters()}
    loss = trainer.step(users, items)

    generator = torch.Generator()
    generator.set_state(state)
    user_table = before["user_table"].requires_grad_()
    item_table = before["item_table"].requires_grad_()
    rows = user_table[users]
    if dropout:
        rows = reference.dropout(rows, None, 0, steps_of(dropout), draw_seed(generator))
    seed = int(torch.randint(2**62, (), generator=generator))
    negatives = reference.draw_negatives(512, 64, small.n_items, seed)
    u, i = reference.unit_rows(rows), reference.unit_rows(item_table)
    inv_tau = trainer.temperature.inv_tau[users][:, None]
    scores = torch.einsum("bd,bnd->bn", u, i[negatives])
    softmax = -trainer.temperature.inv_tau0 * (u * i[items]).sum(1) + (inv_tau * scores).logsumexp(1)
    squares = user_table[users].square().sum() + item_table[items].square().sum()
    expected = softmax.mean() + 0.1 * (squares + item_table[negatives].square().sum()) / (2 * 512)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    for name, parameter in trainer.model.named_parameters():
        exact = before[name].grad
        found = parameter.grad.to_dense().double()
        torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("tau", ["weight_v0", "weight_mean", "weight_ratio", 0.2])
def test_learns_planted_tastes_and_repeats(small: Interactions, tau: str | float) -> None:
    settings = config(tau=tau, t1=0.9, t2=0.5)
    first, second = results(settings, small), results(settings, small)
    for a, b in zip(first, second, strict=True):
        assert a.metrics == b.metrics and a.loss_sum == b.loss_sum
    assert first[-1].metrics["recall@20"] > 3 * 20 / small.n_items  # thrice a random ranking
    assert first[-1].loss_sum < first[0].loss_sum
    spread = [r.inv_tau_max - r.inv_tau_min for r in first]
    assert spread[0] == 0
    adaptive = tau in ("weight_mean", "weight_ratio")
    assert all((s > 0) == adaptive for s in spread[1:])
    for r in first[1:]:
        assert r.inv_tau_max <= math.e * r.inv_tau0 * (1 + 1e-6)


def test_seeds_differ(small: Interactions) -> None:
    assert (
        results(config(epochs=1, seed=1), small)[0].loss_sum
        != results(config(epochs=1), small)[0].loss_sum
    )


def test_protocols(small: Interactions) -> None:
    """clean trains without the validation items, chooses by them, and tests once without both."""
    clean = Trainer(config(protocol="clean", tau=0.2), small)
    assert clean.data.valid is not None
    assert clean.data.train.nnz + clean.data.valid.nnz == small.train.nnz
    assert 0.08 < clean.data.valid.nnz / small.train.nnz < 0.12
    assert clean.users.numel() == clean.data.train.nnz
    again = Trainer(clean.config, clean.data)  # what has been taken out already stays out
    assert again.data.train.nnz == clean.data.train.nnz and again.data.seen.nnz == small.train.nnz
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(clean.run())
    by_valid = [r.metrics["recall@20"] for r in clean.results]
    assert by_valid[clean.best] == max(by_valid)
    clean.load_best()
    measured = clean.evaluate_test().means()
    expected = evaluate(
        *clean.model.embeddings(), small.test, exclude=small.train, ks=(10, 20, 50), normalize="both"
    )
    assert measured == expected
    paper = Trainer(config(tau=0.2), small)
    with pytest.warns(UserWarning, match="the best epoch is chosen on the test items"):
        paper.run()
    with pytest.warns(UserWarning, match="the best epoch is chosen on the test items"):
        assert paper.evaluate().means() == paper.evaluate_test().means()
    assert paper.users.numel() == small.train.nnz


@pytest.mark.parametrize(("model", "own"), [("mf", "user"), ("lightgcn", "none")])
def test_scores_of_evaluation_can_be_chosen(small: Interactions, model: str, own: str) -> None:
    """Otherwise they are the loss's, or inner products for LightGCN."""
    settings = config(model=model, normalize="user", tau=0.2, epochs=1, ks=(20,))
    lengths = {"user", "none"}  # those of users change no order
    for given, alike in ((None, lengths), ("both", {"both", "item"})):
        trainer = Trainer(settings.model_copy(update={"ranking": given}), small)
        [result] = [event for event in trainer.run() if isinstance(event, EpochResult)]
        by_way = {
            way: evaluate(
                *trainer.model.embeddings(), small.test, exclude=small.train, ks=(20,), normalize=way
            )
            for way in ("both", "item", "user", "none")
        }
        assert {way for way, metrics in by_way.items() if metrics == result.metrics} == alike
        assert trainer.fitted().normalize == (given or own)


def test_popular_items_grow_without_normalisation() -> None:
    """Figure of the paper: magnitudes follow popularity, more so with every epoch."""
    data = read_lightgcn(real_data("lastfm"), cold_users="drop")
    settings = config(
        loss="bpr", tau=1, normalize="none", n_negatives=1, batch_size=2048, dim=32, epochs=8, l2=1e-3
    )
    looked_at = [result.diagnostics for result in results(settings, data)]
    spearman = [d["item_norm_popularity"] for d in looked_at]
    assert abs(spearman[0]) < 0.2 < spearman[1] < spearman[2] and min(spearman[3:]) > 0.7
    norms = np.array([d["item_norm_by_group"] for d in looked_at])
    growth = norms[-1] / norms[0]
    assert growth.argmax() == 9 and growth[9] > 2 * growth[0]


def test_diagnostics_are_what_they_say(small: Interactions) -> None:
    trainer = Trainer(config(epochs=2, ks=(5, 10, 20)), small)
    list(trainer.run())
    found = trainer.results[-1].diagnostics
    u, i = (torch.nn.functional.normalize(x.detach()).double() for x in trainer.model.embeddings())
    users, items = small.pairs()
    assert found["positive_score"] == pytest.approx(
        float((u[users] * i[items]).sum(1).mean()), rel=1e-4
    )
    assert found["random_score"] == pytest.approx(float((u[users] @ i.T).mean()), rel=1e-3, abs=1e-6)
    assert sum(found["recall@10_by_group"]) == pytest.approx(trainer.results[-1].metrics["recall@10"])
    quantiles = found["inv_tau_quantiles"]
    assert quantiles == sorted(quantiles) and len(quantiles) == 11
    assert quantiles[0] == pytest.approx(float(trainer.temperature.inv_tau.min()), rel=1e-6)
    assert len(found["item_norm_by_group"]) == 10


def test_patience(small: Interactions) -> None:
    trainer = Trainer(config(tau=0.2, lr=1e-8, epochs=50, patience=3), small)
    assert not trainer.finished
    list(trainer.run())
    assert len(trainer.results) == trainer.best + 4 < 50


@pytest.mark.parametrize("loss", ["bpr", "bce", "mse", "ccl", "direct_au", "bsl"])
@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_every_loss_trains_every_model(small: Interactions, model: str, loss: str) -> None:
    normalize = "none" if loss in ("bpr", "bce", "mse") else "both"
    settings = config(
        model=model, loss=loss, tau=0.2 if loss == "bsl" else 1, normalize=normalize, n_negatives=20,
        lr=0.02, l2=1e-4, epochs=4,
    )  # fmt: skip
    trained = results(settings, small)
    assert trained[-1].loss_sum < trained[0].loss_sum
    assert trained[-1].metrics["recall@20"] > 1.5 * 20 / small.n_items


def test_settings_reach_the_temperature_and_the_data(small: Interactions) -> None:
    form = {"mode": "paper", "t1": 0.3, "t2": 0.7, "variance": True, "warmup_epochs": 5}
    temperature = Trainer(config(tau="weight_ratio", **form), small).temperature
    assert {name: getattr(temperature, name) for name in form} == form
    assert temperature.strategy == "weight_ratio"
    for tau, n in (("learned", 1), ("learned_per_user", small.n_users)):
        learned = Trainer(config(tau=tau, initial_tau=0.3, denominator="negatives"), small).temperature
        assert torch.allclose(learned.of(torch.arange(n)), torch.full((n,), 0.3))
        assert learned.denominator == "negatives"
    trainers = {
        name: Trainer(config(**changes), small)
        for name, changes in {
            "plain": {},
            "activity": {"noise": 0.5},
            "user": {"noise": 0.5, "noise_by": "user"},
            "other": {"noise": 0.5, "split_seed": 1},
            "half": {"protocol": "clean", "valid_fraction": 0.5},
        }.items()
    }
    assert trainers["plain"].data.train.nnz == small.train.nnz
    count = [trainers[name].data.train.nnz for name in ("activity", "user", "other")]
    assert count == pytest.approx([1.5 * small.train.nnz] * 3, rel=0.01)
    added = [
        np.diff(trainers[name].data.train.indptr) - np.diff(small.train.indptr) for name in trainers
    ]
    assert np.ptp(added[2]) <= 1 < np.ptp(added[1])  # the same for everybody
    assert (trainers["activity"].data.train != trainers["other"].data.train).nnz > 0
    assert trainers["half"].data.valid.nnz == pytest.approx(small.train.nnz / 2, rel=0.05)


class TwoTowers(MF):
    """A model that looks at the interactions."""

    def __init__(self, data: Interactions) -> None:
        super().__init__(data.n_users, data.n_items, 8, seed=0)
        self.encoder = LightGCN(data.train, 8)


def test_a_model_is_made_of_what_is_trained_on(small: Interactions) -> None:
    """A graph with validation items would be chosen by what it has seen."""
    settings = config(protocol="clean", epochs=1, tau=0.2)
    for model in (LightGCN(small.train, 8), TwoTowers(small)):
        with pytest.raises(ConfigError, match="the model's graph has .* give a function of the data"):
            Trainer(settings, small, model)
    for make in (lambda data: LightGCN(data.train, 8), TwoTowers):
        trainer = Trainer(settings, small, make)
        list(trainer.run())
        assert trainer.data.train.nnz < small.train.nnz and trainer.results[0].metrics["recall@20"] > 0
    assert Trainer(config(tau=0.2), small, LightGCN(small.train, 8)).model.graph.n_interactions


class Halves(Temperature):
    """Users' temperatures in two groups, learned."""

    def __init__(self) -> None:
        super().__init__()
        self.log_tau = torch.nn.Parameter(torch.tensor([-1.0, -2.0]))

    def of(self, users: torch.Tensor) -> torch.Tensor:
        return self.log_tau.exp()[users % 2]


def test_any_temperature_trains(small: Interactions) -> None:
    temperature = Halves()
    trainer = Trainer(config(epochs=2, tau_lr=0.1), small, temperature=temperature)
    list(trainer.run())
    assert trainer.temperature is temperature
    assert (temperature.log_tau.detach() - torch.tensor([-1.0, -2.0])).abs().min() > 0.05


def test_looking_changes_nothing(small: Interactions) -> None:
    """Evaluated in the middle of an epoch: the same up to when waiting rows are caught up with."""
    settings = config(tau="weight_mean", dropout=0.3, epochs=2)
    plain, looked_at = Trainer(settings, small), Trainer(settings, small)
    list(plain.run())
    for step, event in enumerate(looked_at.run()):
        if step % 5 == 2 and isinstance(event, torch.Tensor):
            looked_at.evaluate()
            assert looked_at.model.training
    for a, b in zip(plain.results, looked_at.results, strict=True):
        assert a.loss_sum == pytest.approx(b.loss_sum, rel=1e-5)


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_an_epoch_that_was_left(small: Interactions, model: str) -> None:
    """The best epoch's model is there; the next epoch would need what is lost."""
    settings = config(model=model, tau="weight_mean", epochs=3)
    trainer, whole = Trainer(settings, small), Trainer(settings, small)
    whole_run = (event for event in whole.run() if isinstance(event, EpochResult))
    next(whole_run)
    state = copy.deepcopy(whole.state_dict())  # its tensors are those in use
    for step, _ in enumerate(trainer.run()):
        if len(trainer.results) == 1 and step > trainer.n_batches + 3:
            break
    trainer.load_best()
    for ours, exact in zip(trainer.embeddings(), whole.embeddings(), strict=True):
        assert torch.equal(ours, exact)
    with pytest.raises(
        TrainingError, match="epoch 1 was left before its end; go on from a state_dict that"
    ):
        next(trainer.run())
    trainer.load_state_dict(state)
    again = [event for event in trainer.run() if isinstance(event, EpochResult)]
    assert [e.loss_sum for e in again] == [e.loss_sum for e in whole_run]
    other = Trainer(settings.model_copy(update={"lr": 0.5}), small)
    with pytest.raises(ValueError, match="the state is one of another configuration"):
        other.load_state_dict(state)


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_training_leaves_nothing_in_the_model(small: Interactions, model: str) -> None:
    """Its gradients are dense again, and what was taken out of a trainer stays as it was."""
    trainer = Trainer(config(model=model, tau=0.2, epochs=2), small)
    fitted = []
    for event in trainer.run():
        if isinstance(event, EpochResult):
            model_then = trainer.fitted()
            fitted.append((model_then, model_then.user_embeddings.clone()))
    for then, copied in fitted:
        assert torch.equal(then.user_embeddings, copied)
    assert not torch.equal(fitted[0][1], fitted[1][1])
    for table in trainer.model.parameters():
        table.grad = None
    rows = trainer.model.rows(trainer.users[:8], trainer.items[:8], catalogue=False)
    (rows.u.sum() + rows.i.sum()).backward()
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    torch.optim.Adam(trainer.model.parameters()).step()


def test_the_best_epoch_outlives_a_stop(small: Interactions, tmp_path: Path) -> None:
    """The one before the stop, if none after it is better."""
    settings = config(tau=0.2, epochs=2, lr=0.02)
    first = Trainer(settings, small)
    list(first.run())
    first.best = 0  # as if the second had been worse
    first.best_model["item_table"] += 1
    first.keep(tmp_path)
    second = Trainer(settings.model_copy(update={"epochs": 3}), small)
    second.restore(tmp_path)
    assert second.best == 0
    second.results[0].metrics["recall@20"] = 1.0
    list(second.run())
    assert second.best == 0
    second.load_best()
    assert torch.equal(second.model.item_table, first.best_model["item_table"])


def test_nothing_held_out_is_told(small: Interactions) -> None:
    nothing = replace(small, test=small.test * 0)
    nothing.test.eliminate_zeros()
    trainer = Trainer(config(epochs=1, tau=0.2), nothing)
    list(trainer.run())
    assert trainer.results[0].metrics == {}
    with pytest.raises(DataError, match="there is nothing held out to evaluate on"):
        trainer.evaluate()


def test_diagnostics_of_items_that_are_alike() -> None:
    """No rank correlation, and no number that JSON has not."""
    pairs = np.repeat(np.arange(12), 4), (np.arange(48) * 7 % 12 + np.arange(48) // 12) % 12
    data = Interactions.from_pairs("alike", pairs, (np.array([0]), np.array([1])), duplicates="merge")
    assert np.ptp(np.bincount(data.train.indices)) == 0
    trainer = Trainer(config(epochs=1, tau=0.2, n_negatives=4), data)
    list(trainer.run())
    assert trainer.results[0].diagnostics["item_norm_popularity"] is None
    json.dumps(asdict(trainer.results[0]), allow_nan=False)


@pytest.mark.parametrize("negatives", ["sampled", "in_batch", "full"])
@pytest.mark.parametrize("tau", ["weight_mean", "learned", "learned_per_user"])
@pytest.mark.parametrize("model", ["mf", "lightgcn"])
def test_every_strategy_trains(small: Interactions, model: str, tau: str, negatives: str) -> None:
    settings = config(model=model, tau=tau, negatives=negatives, dropout=0.1, epochs=3, lr=0.02)
    trained = results(settings, small)
    assert trained[-1].metrics["recall@20"] > 1.5 * 20 / small.n_items
    if tau == "learned":
        assert trained[0].inv_tau_min == pytest.approx(trained[0].inv_tau_max)
        assert trained[-1].inv_tau0 != pytest.approx(10, rel=0.05)  # it learns
    else:
        assert trained[-1].inv_tau_max > 1.01 * trained[-1].inv_tau_min


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "paper"},
        {"variance": True},
        *({"normalize": n, "tau": 0.3} for n in ("user", "item", "none")),
    ],
    ids=str,
)
def test_every_form_trains(small: Interactions, changes: dict[str, object]) -> None:
    """Of Adap-tau, past its warm-up, and of normalisation."""
    trained = results(config(warmup_epochs=2, dropout=0.1, epochs=5, lr=0.02, **changes), small)
    assert trained[-1].loss_sum < trained[0].loss_sum
    assert trained[-1].metrics["recall@20"] > 1.5 * 20 / small.n_items
    users_differ = trained[-1].inv_tau_max > 1.01 * trained[-1].inv_tau_min
    assert users_differ == ("tau" not in changes)


def test_lightgcn_is_the_same_with_its_graph_reordered(
    small: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(model="lightgcn", dropout=0.2, epochs=2)
    plain = results(settings, small)
    monkeypatch.setattr(reorder, "LEAF", 50)
    trainer = Trainer(settings, small)
    reordered = [event for event in trainer.run() if isinstance(event, EpochResult)]
    assert trainer.model.graph._adjacency[4] is not None
    for a, b in zip(plain, reordered, strict=True):
        assert a.metrics == b.metrics and a.loss_sum == b.loss_sum


@pytest.mark.parametrize("model", ["mf", "lightgcn"])
@pytest.mark.parametrize("tau", ["weight_ratio", "learned_per_user"])
def test_resumed_is_uninterrupted(small: Interactions, tmp_path: Path, model: str, tau: str) -> None:
    settings = config(model=model, tau=tau, dropout=0.2, epochs=4)
    whole = Run(Trainer(settings, small), tmp_path / "whole")
    list(whole.events())
    for event in Run(Trainer(settings, small), tmp_path / "parts").events():
        if isinstance(event, EpochResult) and event.epoch == 1:
            break  # killed while the next epoch trains
    parts = Run(Trainer(settings, small), tmp_path / "parts")
    assert parts.results is None
    list(parts.events())
    timeless = [
        [{k: v for k, v in asdict(r).items() if "seconds" not in k} for r in run.trainer.results]
        for run in (whole, parts)
    ]
    assert timeless[0] == timeless[1] and len(timeless[0]) == 4
    models = [torch.load(tmp_path / name / "model.pt") for name in ("whole", "parts")]
    for name, tensor in models[0].items():
        assert torch.equal(tensor, models[1][name])
    lines = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="holds a run of another configuration"):
        Run(Trainer(config(model=model, lr=1), small), tmp_path / "parts")


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["train", *words], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def write_data(folder: Path) -> Path:
    folder.mkdir()
    data = synthetic(0, n_users=60, n_items=80, n_tastes=4, mean_items=10)
    for name, csr in (("train", data.train), ("test", data.test)):
        lines = (f"{u} {' '.join(map(str, csr[[u]].indices))}" for u in range(data.n_users))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_command_trains_on_files(tmp_path: Path) -> None:
    data = write_data(tmp_path / "tiny")
    out = tmp_path / "out"
    code, text = run(
        f"data={data}", "recipe=gowalla-mf", "epochs=2", "dim=8", "ks=5,10", f"output={out}"
    )
    assert code == 0, text
    assert "tiny: 60 users, 80 items" in text and "Full ranking of the test items by epoch" in text
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert set(lines[0]["metrics"]) == {
        f"{m}@{k}" for m in ("recall", "ndcg", "precision", "hit", "mrr", "map") for k in (5, 10)
    }
    saved = TrainConfig.model_validate_json((out / "config.json").read_text())
    assert (saved.tau, saved.t1, saved.t2, saved.lr, saved.epochs) == (
        "weight_ratio",
        0.9,
        0.25,
        1e-4,
        2,
    )
    assert torch.load(out / "model.pt", weights_only=True)["user_table"].shape == (60, 8)


def test_help_lists_every_key() -> None:
    code, text = run("--help")
    assert code == 0
    for key in (*TrainConfig.model_fields, "recipe"):
        assert key in text


def test_tau0_follows_the_embeddings_after_the_warm_up(small: Interactions) -> None:
    found = [result.inv_tau0 for result in results(config(tau="weight_v0", warmup_epochs=3), small)]
    assert len(set(found[:3])) == 1 and len(set(found[2:])) == 3
