"""The reproduction's configurations, tables and pages."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from statistics import median

import pytest
import reproduce
import scipy.stats
import torch
from reproduction import arms, runs, tables
from reproduction.arms import Arm, Row
from reproduction.page import TEXT, write_page
from reproduction.published import Published
from reproduction.tables import Line

from adaptau_ext.data import synthetic
from adaptau_ext.recipes import RECIPES
from adaptau_ext.training import TrainConfig
from tests.conftest import PUBLISHED


@pytest.fixture(autouse=True)
def _one_thread(restore_threads: None) -> None:
    """The tensors are small: threads would cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set called tiny, and published numbers of one run on it."""
    root = tmp_path_factory.mktemp("reproduction")
    made_up = synthetic(0, n_users=60, n_items=80, n_tastes=5, mean_items=12)
    (root / "data" / "tiny").mkdir(parents=True)
    for name, rows in (("train", made_up.train), ("test", made_up.test)):
        lines = [
            " ".join(map(str, [user, *rows.indices[rows.indptr[user] : rows.indptr[user + 1]]]))
            for user in range(made_up.n_users)
        ]
        (root / "data" / "tiny" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    published = root / "published"
    published.mkdir()
    run = {"dataset": "tiny", "backbone": "mf", "tau_mode": "weight_v0"}
    epoch = {**run, "train_seconds": "8", "eval_seconds": "1"}
    files = {
        "official_results": [{**run, "recall@20": "0.5", "ndcg@20": "0.25"}],
        "official_epochs": [{**epoch, "inv_tau_min": "3.2", "inv_tau_max": "4"}] * 7
        + [{**epoch, "inv_tau_min": "4", "inv_tau_max": "5"}],  # a quarter above
        "paper_results": [{
            "table": "main", "dataset": "tiny", "backbone": "mf", "strategy": "grid_tau",
            "noise_ratio": "", "recall@20": "0.4", "ndcg@20": "0.2",
        }],
    }  # fmt: skip
    for name, rows in files.items():
        with (published / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return root, published


def folders(root: Path) -> runs.Folders:
    return runs.Folders(root / "data", root / "runs", root / "records")


def arm(name: str, **changes: object) -> Arm:
    settings = {
        "data": "tiny",
        "protocol": "paper",
        "dim": 8,
        "n_negatives": 16,
        "l2": 1e-7,
        "epochs": 8,
        "lr": 0.02,
    }
    return Arm(name, {**settings, **changes})


def test_every_run_is_a_configuration_and_has_one_name() -> None:
    found: dict[str, dict[str, object]] = {}
    for table, rows in reproduce.TABLES.items():
        assert table in TEXT
        for row in rows():
            assert row.arms
            for one in row.arms:
                settings = TrainConfig.model_validate({**one.settings, "data": "x"})
                assert settings.protocol == ("clean" if table in ("clean", "search") else "paper")
                assert found.setdefault(one.name, one.settings) == one.settings
    configurations = [json.dumps(settings, sort_keys=True) for settings in found.values()]
    assert len(set(configurations)) == len(configurations)  # nothing is run twice
    noisy = [s for s in found.values() if s.get("noise")]
    assert len(noisy) == 2 * 5 * 4
    for prefix, budget in arms.BUDGETS.items():
        chosen = [settings for name, settings in found.items() if name.startswith(prefix)]
        assert len(chosen) > 10 and all(budget.items() <= settings.items() for settings in chosen)


def test_a_row_is_the_best_of_its_runs_beside_the_published(places: tuple[Path, Path]) -> None:
    root, published = places
    labels = {"dataset": "tiny", "backbone": "mf"}
    full = arm("main-tiny-mf-adap_tau0", tau="weight_v0")
    grid = [arm("short-0.05", tau=0.05), arm("short-5", tau=5.0)]
    rows = [
        Row("main", {**labels, "strategy": "adap_tau0"}, (full,)),
        Row("main", {**labels, "strategy": "grid_tau"}, tuple(grid)),
        Row("main", {**labels, "strategy": "cu_tau"}, (arm("not-there"),)),
    ]
    done = [runs.run(one, folders(root), 1) for one in (full, *grid)]
    assert done[1].test["recall@20"] != done[2].test["recall@20"]

    text = write_page({"main": rows}, root / "records", Published(published), root / "out")
    with (root / "out" / "main.csv").open() as file:
        first, second = csv.DictReader(file)  # the run that is not there has no line
    assert first["recall published"] == "0.5000" and first["published in"] == "log"
    ours = done[0].test["recall@20"]
    assert first["recall difference"] == f"{100 * (ours / 0.5 - 1):+.1f} %"
    assert first["s/epoch published"] == "8.0" and first["commit"] == done[0].provenance["commit"]
    late = [e for e in done[0].epochs if e["epoch"] > 5]
    low, high = (
        sorted(100 * abs(e[k] / v - 1) for e, v in zip(late, values, strict=True))
        for k, values in (("inv_tau_min", (3.2, 4)), ("inv_tau_max", (4, 5)))
    )
    for side, differences in (("smallest", low), ("largest", high)):
        assert len(differences) == 2 and differences[0] > 5
        cell = (
            f"{median(differences):.1f} %, at most {differences[1]:.1f} %, beyond 5 % in 2 of 2 epochs; "
            "epoch to epoch 25.0 %"
        )
        assert first[f"1/tau, {side}"] == cell
    best = max(done[1:], key=lambda d: d.test["recall@20"])
    assert second["recall@20"] == f"{best.test['recall@20']:.4f}" and second["published in"] == "paper"
    assert second["chosen"] == f"tau {best.arm.settings['tau']:g}, best of 2"
    assert "| adap_tau0 |" in text and "cu_tau" not in text


def test_strategies_are_compared_user_by_user(places: tuple[Path, Path]) -> None:
    root, published = places
    pair = [arm("clean-0", tau="weight_v0"), arm("clean-1", tau="weight_mean")]
    labels = {"dataset": "tiny", "backbone": "mf"}
    rows = [
        Row("clean", {**labels, "strategy": name}, (one,))
        for name, one in zip(("adap_tau0", "adap_tau"), pair, strict=True)
    ]
    runs.run(pair[0], folders(root), 1)
    page_of_one = write_page({"clean": rows}, root / "records", Published(published), root)
    assert "Wilcoxon" not in page_of_one
    second = runs.run(pair[1], folders(root), 1)
    write_page({"clean": rows}, root / "records", Published(published), root)
    kept = [runs.user_metrics(one, root / "records") for one in pair]
    values = [users.values["recall@20"] for users in kept if users is not None]
    assert values[1].mean() == pytest.approx(second.test["recall@20"], rel=1e-5)  # of the chosen epoch
    with (root / "clean-paired.csv").open() as file:
        recall = next(row for row in csv.DictReader(file) if row["metric"] == "recall@20")
    assert recall["t test, p"] == f"{scipy.stats.ttest_rel(*values).pvalue:.1e}"


def test_clean_numbers_are_beside_those_by_the_papers_protocol(places: tuple[Path, Path]) -> None:
    root, published = places
    both = [arm(f"beside-{p}", tau=0.1, protocol=p, epochs=3) for p in ("clean", "paper")]
    ours, beside = (runs.run(one, folders(root), 1) for one in both)
    row = Row("clean", {"dataset": "tiny"}, (both[0],), beside=both[1])
    write_page({"clean": [row]}, root / "records", Published(published), root / "beside")
    with (root / "beside" / "clean.csv").open() as file:
        (cells,) = csv.DictReader(file)
    assert ours.test["recall@20"] != beside.test["recall@20"]
    assert cells["recall@20"] == f"{ours.test['recall@20']:.4f}"
    assert cells["recall by paper"] == f"{beside.test['recall@20']:.4f}"
    expected = 100 * (ours.test["ndcg@20"] / beside.test["ndcg@20"] - 1)
    assert cells["ndcg difference"] == f"{expected:+.1f} %"


def test_temperatures_of_seeds_are_beside_the_published_and_the_first(
    places: tuple[Path, Path],
) -> None:
    root, published = places
    both = [arm(f"seed-{seed}", tau="weight_v0", seed=seed) for seed in (0, 1)]
    labels = {"dataset": "tiny", "backbone": "mf", "strategy": "adap_tau0"}
    done = [runs.run(one, folders(root), 1) for one in both]
    shifted = [{**e, "inv_tau_min": 1.02 * e["inv_tau_min"]} for e in done[0].epochs]
    first = runs.Done(both[0], done[0].results, shifted, done[0].provenance)
    lines = [Line(Row("seeds", labels, (one.arm,)), [one], first) for one in done]
    same, other = tables.settling(lines, Published(published))
    assert same["smallest, from the first"] == ""
    cell = "2.0 %, at most 2.0 %"  # one w0 for all, of counts: the seed does not change it
    assert other["smallest, from the first"] == cell and other["largest, from the first"].startswith(
        "0.0 %"
    )
    log = 100 * abs(done[1].epochs[-1]["inv_tau_max"] / 5 - 1)
    assert f"at most {log:.1f} %" in other["largest, from published"]


def test_hyper_parameters_are_chosen_on_validation_items(places: tuple[Path, Path]) -> None:
    root, published = places
    rates = (0.002, 0.02)
    found = [arm(f"search-{lr}", tau="weight_v0", protocol="clean", epochs=3, lr=lr) for lr in rates]
    lines = [
        Line(
            Row(
                "search", {"backbone": "mf", "tau": "weight_v0", "lr": str(one.settings["lr"])}, (one,)
            ),
            [runs.run(one, folders(root), 1)],
            None,
        )
        for one in found
    ]
    best, other = tables.search(lines, Published(published))
    assert (best["chosen"], other["chosen"]) == ("x", "")
    for cells in (best, other):
        done = lines[rates.index(float(cells["lr"]))].best
        value = max(epoch["metrics"]["recall@20"] for epoch in done.epochs)
        assert (
            cells["recall@20 of validation items"] == f"{value:.4f}" != f"{done.test['recall@20']:.4f}"
        )
    assert best["recall@20 of validation items"] > other["recall@20 of validation items"]


def test_recipes_for_movielens_are_what_the_search_has_found() -> None:
    records = Path(reproduce.__file__).parent / "results" / "reproduction" / "records"
    lines = [
        Line(row, [done], None)
        for row in arms.search()
        if (done := runs.load(row.arms[0], records)) is not None
    ]
    for name in (n for n in RECIPES if n.startswith("ml-1m-")):
        backbone = name.split("-")[2]
        like = next(
            line
            for line in lines
            if line.row.labels["backbone"] == backbone
            and (line.row.labels["tau"] == "weight_v0") == name.endswith("-tau0")
        )
        chosen = tables.chosen_of(lines, like).best.arm.settings
        recipe = TrainConfig.model_validate({**RECIPES[name]})
        expected = TrainConfig.model_validate({**chosen, "data": recipe.data})
        free = {"protocol", "valid_fraction", "epochs", "patience"}
        assert recipe.model_dump(exclude=free) == expected.model_dump(exclude=free)


def test_published_numbers_are_found_by_their_labels() -> None:
    if not PUBLISHED.is_dir():
        pytest.skip(f"published results are not in {PUBLISHED}")
    published = Published(PUBLISHED)
    for table in ("main", "strategies", "normalisation", "noise"):
        found = [published.of(row) for row in reproduce.TABLES[table]()]
        assert None not in found and len(set(found)) > len(found) / 3, table
    for table in ("main", "seconds", "seeds"):
        for row in reproduce.TABLES[table]():
            assert (len(published.log(row)) > 50) == (row.labels["dataset"] != "ml-1m")


def test_seconds_are_beside_the_published(places: tuple[Path, Path]) -> None:
    root, published = places
    one = arm("seconds-tiny-mf", tau="weight_v0", epochs=3)
    done = runs.run(one, folders(root), 1)
    row = Row("seconds", {"dataset": "tiny", "backbone": "mf", "strategy": "adap_tau0"}, (one,))
    (cells,) = tables.seconds([Line(row, [done], None)], Published(published))
    middle = sorted(e["train_seconds"] for e in done.epochs)[1]
    assert cells["epoch, s"] == f"{middle:.2f}" and cells["epoch, published"] == "8.00"
    assert cells["epoch, times"] == f"{middle / 8:.2f}"
    middle = sorted(e["eval_seconds"] for e in done.epochs)[1]
    assert cells["evaluation, times"] == f"{middle / 0.5:.2f}"  # a log's row has two


def test_what_is_done_is_not_run_again(places: tuple[Path, Path]) -> None:
    root, _ = places
    one = arm("again", tau=0.1, epochs=2)
    first = runs.run(one, folders(root), 1)
    kept = root / "records" / "again.json"
    written = kept.stat().st_mtime_ns
    shutil.rmtree(root / "runs" / "again")  # as in a fresh clone, which has the records alone
    assert runs.run(one, folders(root), 1) == first
    assert kept.stat().st_mtime_ns == written and not (root / "runs" / "again").exists()
    with pytest.raises(ValueError, match=r"again.json is of other settings: remove it to run again"):
        runs.run(arm("again", tau=0.2, epochs=2), folders(root), 1)


def test_what_goes_on_names_every_commit(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = places
    path = root / "provenance.json"
    for commit in ("one", "one", "two"):
        monkeypatch.setattr(runs, "COMMIT", commit)
        runs._keep_provenance(path)
    assert json.loads(path.read_text())["commit"] == "one, two"


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
def test_a_run_that_diverges_does_not_hold_up_the_others(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, published = places
    rows = [
        Row("none", {"label": name}, (arm(f"of-{name}", epochs=3, tau=1.0, **changes),))
        for name, changes in (("bad", {"lr": 1e30, "normalize": "none"}), ("good", {}), ("other", {}))
    ]
    monkeypatch.setattr(reproduce, "TABLES", {"curve": lambda: rows})
    words = [f"--{name}={root / name}" for name in ("data", "work", "output")]
    words += [f"--published={published}", "curve", "--only", "of-*d"]
    monkeypatch.setattr(reproduce, "write_page", lambda *_: "the page")
    assert reproduce.main([*words, "--page"]) == 0 and not (root / "output").exists()
    assert reproduce.main(words) == 1
    out, err = capsys.readouterr()
    assert out == 2 * "the page\n" and "of-bad: epoch 1 diverged" in err
    assert [path.name for path in (root / "output" / "records").iterdir()] == ["of-good.json"]


def test_figures(places: tuple[Path, Path]) -> None:
    root, published = places
    made = {
        mode: arm(f"figure-{mode}", tau=0.1, normalize=normalize, epochs=3)
        for mode, normalize in arms.NORMALIZE.items()
    }
    made["adap_tau"] = arm("figure-adap", tau="weight_mean", epochs=3)
    for one in made.values():
        runs.run(one, folders(root), 1)

    def rows(**labels: str) -> list[Row]:
        return [Row("none", {"label": label}, (made[mode],)) for label, mode in labels.items()]

    wanted = {
        "normalisation": rows(**{mode: mode for mode in arms.NORMALIZE}),
        "curve": rows(**{"0.1": "Y-Y", "adap_tau": "adap_tau"}),
        "trajectories": rows(**{"Y-Y": "Y-Y", "N-N": "N-N"}),
    }
    text = write_page(wanted, root / "records", Published(published), root / "figures")
    names = ("magnitude", "groups", "curve", "positive-scores", "trajectories")
    for name in names:
        assert f"![{name}]({name}.png)" in text
        assert (root / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    drawn = {
        name: list(csv.DictReader((root / "figures" / f"{name}.csv").open()))
        for name in ("magnitude", "groups", "positive-scores", "trajectories")
    }
    assert [row["run"] for row in drawn["groups"]] == list(arms.NORMALIZE)
    epochs = runs.load(made["N-N"], root / "records").epochs
    for row, epoch in zip(drawn["magnitude"], epochs, strict=True):
        looks = epoch["diagnostics"]
        assert float(row["Spearman"]) == looks["item_norm_popularity"]
        assert [float(row[f"group {n}"]) for n in range(1, 11)] == looks["item_norm_by_group"]
    assert [row["run"] for row in drawn["positive-scores"]] == 3 * ["tau 0.1"] + 3 * ["adap_tau"]
    assert [float(row["recall@20"]) for row in drawn["trajectories"][3:]] == [
        epoch["metrics"]["recall@20"] for epoch in epochs
    ]


def test_empty_columns_are_left_out() -> None:
    table = tables.markdown([{"a": 1, "b": ""}, {"a": 2, "b": "", "c": 3}])
    assert table == "| a | c |\n| --- | --- |\n| 1 |  |\n| 2 | 3 |\n"
