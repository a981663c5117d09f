"""The reproduction's configurations, tables and pages."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import reproduce
import scipy.stats
import torch
from matplotlib.figure import Figure
from reproduction import arms, figures, runs, tables
from reproduction.arms import Arm, Row
from reproduction.page import TEXT, write_page
from reproduction.published import Published
from reproduction.tables import Line

from adaptau_ext.data import synthetic
from adaptau_ext.errors import ConfigError
from adaptau_ext.recipes import RECIPES
from adaptau_ext.temperature import AdaptiveTemperature
from adaptau_ext.training import TrainConfig, Trainer
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
        + [{**epoch, "inv_tau_min": "4", "inv_tau_max": "5"}]  # a quarter above
        + [{**epoch, "inv_tau_min": "40", "inv_tau_max": "50"}],  # later than ours end
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
    assert len(noisy) == 2 * 5 * (3 + 5 + 2)
    for row in arms.noise():
        for one in row.arms:
            labels = (row.labels["noise_by"], row.labels["noise_ratio"])
            assert (one.settings["noise_by"], f"{one.settings['noise']:g}") == labels
    normalised = {row.labels["strategy"]: row.arms[0].settings for row in arms.normalisation()}
    assert normalised["Y-N"]["normalize"] == "user" and normalised["N-Y"]["normalize"] == "item"
    for prefix, budget in arms.BUDGETS.items():
        chosen = [settings for name, settings in found.items() if name.startswith(prefix)]
        assert len(chosen) > 10 and all(budget.items() <= settings.items() for settings in chosen)


def test_a_row_is_the_best_of_its_runs_beside_the_published(places: tuple[Path, Path]) -> None:
    root, published = places
    labels = {"dataset": "tiny", "backbone": "mf"}
    full = arm("main-tiny-mf-adap_tau0", tau="weight_v0")
    grid = [
        arm("short-0.05", tau=0.05, lr=1e-9),
        arm("short-5", tau=5.0, denominator="negatives"),
    ]
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
    assert first["ndcg difference"] == f"{100 * (done[0].test['ndcg@20'] / 0.25 - 1):+.1f} %"
    assert first["commit"] == done[0].provenance["commit"]
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
    at_best = max(done[0].epochs, key=lambda e: e["metrics"]["recall@20"])
    assert first["1/tau"] == f"{at_best['inv_tau_min']:.1f}"  # one for all
    two = replace(done[0], epochs=[{**e, "inv_tau_max": e["inv_tau_min"] + 1} for e in done[0].epochs])
    cells = tables.results([Line(rows[0], [two], None)], Published(published))
    assert cells[0]["1/tau"] == f"{at_best['inv_tau_min']:.1f} to {at_best['inv_tau_min'] + 1:.1f}"
    best = max(done[1:], key=lambda d: d.test["recall@20"])
    assert second["recall@20"] == f"{best.test['recall@20']:.4f}" and second["published in"] == "paper"
    chosen = "lr 0.02, tau 5, denominator negatives, best of 2"
    assert best.arm == grid[1] and second["chosen"] == chosen
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
    signed_ranks = scipy.stats.wilcoxon(*values, zero_method="zsplit").pvalue
    assert recall["Wilcoxon, p"] == f"{signed_ranks:.1e}" != recall["t test, p"]
    assert recall["adap_tau0"] == f"{values[0].mean():.4f}" != recall["adap_tau"]


def test_clean_numbers_are_beside_those_by_the_papers_protocol(places: tuple[Path, Path]) -> None:
    root, published = places
    both = [arm(f"beside-{p}", tau=0.1, protocol=p, epochs=4) for p in ("clean", "paper")]
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
    best = [int(cells[name]) for name in ("epoch", "epoch by paper")]
    for done, epoch in zip((ours, beside), best, strict=True):
        recall = [e["metrics"]["recall@20"] for e in done.epochs]
        assert recall.index(max(recall)) == epoch
    assert max(best) > 0


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
    later = [*done[0].epochs, {**done[0].epochs[-1], "epoch": 8}]
    longer = runs.Done(both[0], done[0].results, later, done[0].provenance)
    lines[0] = Line(lines[0].row, [longer], first)
    same, other = tables.settling(lines, Published(published))
    assert "in 2 of 2 epochs" in same["smallest, from published"]  # as far as the shortest run goes
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
    for table in ("main", "fixed", "strategies", "normalisation", "noise"):
        rows = reproduce.TABLES[table]()
        found = [published.of(row) for row in rows]
        ours = [row.labels["strategy"] == "adap_tau_early" for row in rows]  # which the paper has not
        assert [numbers is None for numbers in found] == ours, table
        assert len(set(found)) > len(found) / 3, table
    for table in ("main", "seconds", "seeds"):
        for row in reproduce.TABLES[table]():
            assert (len(published.log(row)) > 50) == (row.labels["dataset"] != "ml-1m")


def test_seconds_are_beside_the_published(places: tuple[Path, Path]) -> None:
    root, published = places
    one = arm("seconds-tiny-mf", tau="weight_v0", epochs=3)
    done = runs.run(one, folders(root), 1)
    taken = ((6.0, 0.5), (4.0, 0.25), (5.0, 1.5))  # training, evaluation
    epochs = [
        {**epoch, "train_seconds": train, "eval_seconds": evaluation}
        for epoch, (train, evaluation) in zip(done.epochs, taken, strict=True)
    ]
    took = sum(e["train_seconds"] for e in done.epochs)
    assert done.results["train_seconds"] == pytest.approx(took, rel=1e-4)
    results = {**done.results, "train_seconds": 15.0, "eval_seconds": 2.25}
    made_up = runs.Done(one, results, epochs, done.provenance)
    row = Row("seconds", {"dataset": "tiny", "backbone": "mf", "strategy": "adap_tau0"}, (one,))
    lines = [Line(row, [made_up], None)]
    (cells,) = tables.seconds(lines, Published(published))
    assert cells["epoch, s"] == "5.00" and cells["epoch, range"] == "4.00 to 6.00"
    assert cells["epoch, published"] == "8.00" and cells["epoch, times"] == "0.62"
    assert cells["evaluation, s"] == "0.50" and cells["evaluation, published"] == "0.50"  # it has two
    assert tables.results(lines, Published(published))[0]["seconds"] == "17"


def test_what_is_done_is_not_run_again(places: tuple[Path, Path]) -> None:
    root, published = places
    one = arm("again", tau=0.1, epochs=2)
    first = runs.run(one, folders(root), 1)
    kept = root / "records" / "again.json"
    written = kept.stat().st_mtime_ns
    shutil.rmtree(root / "runs" / "again")  # as in a fresh clone, which has the records alone
    assert runs.run(one, folders(root), 1) == first
    assert kept.stat().st_mtime_ns == written and not (root / "runs" / "again").exists()
    other = arm("again", tau=0.2, epochs=2)
    with pytest.raises(ConfigError, match=r"again.json is of other settings: remove it to run again"):
        runs.run(other, folders(root), 1)
    labels = {"tau": "0.2", "denominator": "all"}
    rows = {"curve": [Row("curve", labels, (other,)), Row("curve", {**labels, "tau": "0.1"}, (one,))]}
    page = write_page(rows, root / "records", Published(published), root / "page")
    assert "Rows still to come: 1 of 2." in page


def test_what_goes_on_names_all_that_had_a_part_in_it(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = places
    path = root / "provenance.json"
    for commit, threads in (("one", 1), ("one", 1), ("two", 2), ("two", 1)):
        monkeypatch.setattr(runs, "COMMIT", commit)
        torch.set_num_threads(threads)
        runs._keep_provenance(path)
        kept = json.loads(path.read_text())
        assert kept["torch"] == torch.__version__
    assert kept["commit"] == "one, two" and kept["threads"] == "1, 2"


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
    assert reproduce.main([*words[:-1], "*", "--list"]) == 0
    assert capsys.readouterr().out == "of-bad\tto come\nof-good\tdone\nof-other\tto come\n"
    with pytest.raises(SystemExit):
        reproduce.main([*words[:-1], "of-goood"])
    assert "--only of-goood: no run of curve has such a name; see --list" in capsys.readouterr().err
    elsewhere = [f"--data={root / 'nowhere'}", *words[1:-1], "of-other"]
    assert reproduce.main(elsewhere) == 1
    assert "of-other: " in (told := capsys.readouterr().err) and "nowhere" in told


def test_a_run_that_was_killed_goes_on(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = places
    one, whole = (arm(name, tau="weight_mean", epochs=4) for name in ("killed", "not-killed"))

    def kept(after: int) -> Callable[[Trainer, Path], None]:
        def keep(trainer: Trainer, folder: Path) -> None:
            written(trainer, folder)
            if len(trainer.results) == after:
                raise KeyboardInterrupt

        return keep

    written = Trainer.keep
    monkeypatch.setattr(Trainer, "keep", kept(2))
    with pytest.raises(KeyboardInterrupt):
        runs.run(one, folders(root), 1)
    assert runs.load(one, root / "records") is None
    trained: list[int] = []
    start = AdaptiveTemperature.start_epoch

    def counted(self: AdaptiveTemperature, epoch: int, *embeddings: torch.Tensor) -> None:
        trained.append(epoch)
        start(self, epoch, *embeddings)

    monkeypatch.setattr(AdaptiveTemperature, "start_epoch", counted)
    monkeypatch.setattr(Trainer, "keep", written)
    done, expected = (runs.run(a, folders(root), 1) for a in (one, whole))
    assert trained == [2, 3, 0, 1, 2, 3] and done.test == expected.test

    def without_seconds(epochs: list[dict[str, object]]) -> list[dict[str, object]]:
        return [{k: v for k, v in e.items() if not k.endswith("seconds")} for e in epochs]

    assert without_seconds(done.epochs) == without_seconds(expected.epochs)


def test_without_published_numbers_their_columns_are_left_out(
    places: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = places
    labels = {"dataset": "tiny", "backbone": "mf", "strategy": "adap_tau0"}
    one = arm("seconds-alone", tau="weight_v0", epochs=3)
    runs.run(one, folders(root), 1)
    wanted = {name: [Row(name, labels, (one,))] for name in ("main", "seconds", "seeds")}
    text = write_page(wanted, root / "records", Published(root / "nowhere"), root / "alone")
    assert "nowhere: no such folder" in capsys.readouterr().err
    tabled = [line for line in text.splitlines() if line.startswith("| dataset")]
    assert len(tabled) == 3 and "published" not in "".join(tabled) and "epoch, s" in tabled[1]


def test_figures(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root, published = places
    made = {
        mode: arm(f"figure-{mode}", tau=0.1, normalize=normalize, epochs=3)
        for mode, normalize in arms.NORMALIZE.items()
    }
    made["0.2"] = arm("figure-0.2", tau=0.2, epochs=3)
    made["0.5"] = arm("figure-0.5", tau=0.5, epochs=3)
    made["adap_tau"] = arm("figure-adap", tau="weight_mean", epochs=3)
    done = {name: runs.run(one, folders(root), 1) for name, one in made.items()}
    recall = {name: one.test["recall@20"] for name, one in done.items()}

    def rows(**labels: str) -> list[Row]:
        return [Row("none", {"label": label}, (made[mode],)) for label, mode in labels.items()]

    wanted = {
        "normalisation": rows(**{mode: mode for mode in arms.NORMALIZE}),
        "noise": [
            Row("none", {"noise_by": by, "noise_ratio": ratio, "strategy": strategy}, (made[name],))
            for by, ratio, strategy, name in (
                ("activity", "0.1", "grid_tau", "0.2"),
                ("activity", "0.2", "grid_tau", "0.5"),
                ("activity", "0.1", "adap_tau", "adap_tau"),
                ("user", "0.1", "adap_tau", "Y-Y"),
            )
        ],
        "curve": [
            Row("none", {"tau": tau, "denominator": denominator}, (made[name],))
            for tau, denominator, name in (
                ("0.1", "all", "Y-Y"),
                ("0.2", "all", "0.2"),
                ("0.5", "all", "0.5"),
                ("0.2", "negatives", "N-N"),
                ("adap_tau", "negatives", "adap_tau"),
            )
        ],
        "trajectories": rows(**{"Y-Y": "Y-Y", "N-N": "N-N"}),
    }
    drawn: dict[str, list[dict[str, list[float]]]] = {}  # figure -> its panels -> label -> values

    def keep(figure: Figure, path: Path) -> None:
        drawn[path.stem] = [
            {str(line.get_label()): [float(y) for y in line.get_ydata()] for line in axes.lines}
            for axes in figure.axes
        ]
        write(figure, path)

    write = figures._write
    monkeypatch.setattr(figures, "_write", keep)
    text = write_page(wanted, root / "records", Published(published), root / "figures")
    for name in ("magnitude", "groups", "noise", "curve", "positive-scores", "trajectories"):
        assert f"![{name}]({name}.png)" in text
        assert (root / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    def over_epochs(name: str, kind: str, key: str) -> list[float]:
        return [epoch[kind][key] for epoch in done[name].epochs]

    by_group = over_epochs("N-N", "diagnostics", "item_norm_by_group")
    norms, correlation = drawn["magnitude"]
    for group in range(10):
        assert norms[str(group + 1)] == [values[group] for values in by_group]
    (spearman,) = correlation.values()
    assert spearman == over_epochs("N-N", "diagnostics", "item_norm_popularity")
    assert drawn["noise"] == [
        {"grid_tau": [recall["0.2"], recall["0.5"]], "adap_tau": [recall["adap_tau"]]},
        {"adap_tau": [recall["Y-Y"]]},
    ]
    (curve,) = drawn["curve"]
    assert curve["fixed, denominator all"] == [recall["Y-Y"], recall["0.2"], recall["0.5"]]
    assert curve["fixed, denominator negatives"] == [recall["N-N"]]
    assert set(curve["adap_tau"]) == {recall["adap_tau"]}
    shown = {"tau 0.1": "Y-Y", "tau 0.5": "0.5", "adap_tau": "adap_tau"}  # every other temperature
    assert drawn["positive-scores"] == [
        {label: over_epochs(name, *keys) for label, name in shown.items()}
        for keys in (("diagnostics", "positive_score"), ("metrics", "recall@20"))
    ]
    assert drawn["trajectories"] == [
        {name: over_epochs(name, *keys) for name in ("Y-Y", "N-N")}
        for keys in (("metrics", "recall@20"), ("diagnostics", "item_norm_popularity"))
    ]

    tables_of = {
        name: list(csv.DictReader((root / "figures" / f"{name}.csv").open()))
        for name in ("magnitude", "groups", "positive-scores", "trajectories")
    }
    assert [row["run"] for row in tables_of["groups"]] == list(arms.NORMALIZE)
    for row in tables_of["groups"]:
        best = done[row["run"]].epochs[done[row["run"]].results["best_epoch"]]
        parts = [float(row[f"group {n}"]) for n in range(1, 11)]
        assert parts == best["diagnostics"]["recall@20_by_group"]
        assert sum(parts) == pytest.approx(recall[row["run"]], rel=1e-4)
    for row, rho, values in zip(tables_of["magnitude"], spearman, by_group, strict=True):
        assert float(row["Spearman"]) == rho
        assert [float(row[f"group {n}"]) for n in range(1, 11)] == values
    assert [row["run"] for row in tables_of["positive-scores"]] == [n for n in shown for _ in range(3)]
    assert [float(row["recall@20"]) for row in tables_of["trajectories"][3:]] == over_epochs(
        "N-N", "metrics", "recall@20"
    )


def test_empty_columns_are_left_out() -> None:
    table = tables.markdown([{"a": 1, "b": ""}, {"a": 2, "b": "", "c": 3}])
    assert table == "| a | c |\n| --- | --- |\n| 1 |  |\n| 2 | 3 |\n"
