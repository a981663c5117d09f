"""Whatever is wrong with files, columns, settings and flags: one line, with the way out, exit code 2."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse
import torch
from typer.testing import CliRunner

from adaptau_ext import cli
from adaptau_ext.fitted import FittedModel
from adaptau_ext.training import TrainConfig

GOOD = "user,item,rating,time\n" + "".join(f"u{n % 17},i{n % 23},{n % 5 + 1},{n}\n" for n in range(60))
Make = Callable[[Path], object]


def text(name: str, content: str) -> Make:
    return lambda folder: (folder / name).write_text(content)


def binary(name: str, content: bytes) -> Make:
    return lambda folder: (folder / name).write_bytes(content)


def table(name: str, **columns: object) -> Make:
    return lambda folder: pyarrow.parquet.write_table(pa.table(columns), folder / name)


def several(*makes: Make) -> Make:
    return lambda folder: [make(folder) for make in makes]


def nothing(folder: Path) -> None:
    """No file at all."""


def folder_of(**files: str) -> Make:
    def make(folder: Path) -> None:
        (folder / "d").mkdir()
        for name, content in files.items():
            (folder / "d" / name.replace("_", ".")).write_text(content)

    return make


def model(folder: Path) -> None:
    """A saved model `m` of two users and three items."""
    ids = pa.array(["a", "b"]), pa.array([1, 2, 3])
    seen = scipy.sparse.csr_array((2, 3), dtype=np.int8)
    FittedModel(*ids, torch.eye(2, 4), torch.eye(3, 4), "both", seen).save(folder / "m")


def run(results: bool = True) -> Make:
    def make(folder: Path) -> None:
        (folder / "r").mkdir()
        (folder / "r" / "config.json").write_text(TrainConfig().model_dump_json())
        if results:
            (folder / "r" / "results.json").write_text(json.dumps({})[:-1])

    return make


log = text("log.csv", GOOD)
TRAIN = ("train", "data=log.csv")
CASES: dict[str, tuple[Make, tuple[str, ...], str]] = {
    # files
    "no such file": (nothing, ("train", "data=nowhere.csv"), "nowhere.csv: no such file or folder"),
    "unknown kind": (text("a.xlsx", "x"), ("train", "data=a.xlsx"), r"read from .csv, .tsv.*got 'a.xlsx'"),
    "empty first line": (text("a.csv", "\nuser,item\n1,2\n"), ("train", "data=a.csv"), "a.csv: the first line is empty"),
    "empty file": (text("a.csv", ""), ("train", "data=a.csv"), "a.csv: the file is empty"),
    "header only": (text("a.csv", "user,item\n"), ("train", "data=a.csv"), "no interaction in it"),
    "no header": (text("a.csv", "1,2\n3,4\n"), ("train", "data=a.csv"), "give their places: user_column=0"),
    "wrong delimiter": (text("a.csv", "user\titem\n1\t2\n"), ("train", "data=a.csv"), "give delimiter"),
    "ragged rows": (text("a.csv", "user,item\n1,2\n3\n"), ("train", "data=a.csv"), "a.csv: .*[Ee]xpected 2 columns"),
    "not utf-8": (binary("a.csv", b"user,item\n\xff\xfe,1\n"), ("train", "data=a.csv"), "a.csv: .*UTF8"),
    "no Parquet": (binary("a.parquet", b"PAR1 no"), ("train", "data=a.parquet"), "a.parquet: .*[Pp]arquet"),
    "no matrix": (binary("a.npz", b"no"), ("train", "data=a.npz"), "not a matrix written by scipy.sparse.save_npz"),
    "pickle as matrix": (
        lambda f: np.savez(f / "a.npz", format=np.array([{}], dtype=object)),
        ("train", "data=a.npz"), "not a matrix written by scipy.sparse.save_npz"),
    "no gzip": (binary("a.csv.gz", b"user,item"), ("train", "data=a.csv.gz"), "a.csv.gz: "),
    # columns
    "no user column": (text("a.csv", "who,item\n1,2\n"), ("train", "data=a.csv"), "no column looks like users; .*give user_column"),
    "no item column": (text("a.csv", "user,what\n1,2\n"), ("train", "data=a.csv"), "no column looks like items; .*give item_column"),
    "two user columns": (text("a.csv", "user,uid,item\n1,2,3\n"), ("train", "data=a.csv"), "users could be in any of user, uid; give user_column"),
    "named column missing": (log, (*TRAIN, "user_column=who"), "no column 'who'; its columns are user, item"),
    "empty id": (text("a.csv", "user,item\n1,2\n,3\n"), ("train", "data=a.csv"), "1 ids missing in user, the first in row 2"),
    "fractional id": (table("a.parquet", user=[1.5], item=[2]), ("train", "data=a.parquet"), "user holds fractions; ids must be"),
    "rating is text": (text("a.csv", "user,item,rating\n1,2,good\n"), ("train", "data=a.csv", "min_rating=2"), "a.csv: .*conversion error"),
    "rating missing": (text("a.csv", "user,item,rating\n1,2,\n"), ("train", "data=a.csv", "rating_column=rating"), "rating has no number in row 1"),
    "time is text": (text("a.csv", "user,item,time\n1,2,noon\n"), ("train", "data=a.csv", "split=temporal"), "time must hold numbers or dates like"),
    "time missing": (table("a.parquet", user=[1], item=[2], time=pa.array([None], pa.timestamp("s"))), ("train", "data=a.parquet", "split=leave_one_out"), "time has no time in row 1"),
    # what is done to the data
    "min_rating without ratings": (text("a.csv", "user,item\n1,2\n"), ("train", "data=a.csv", "min_rating=4"), "needs a column of ratings: give rating_column"),
    "min_rating too high": (log, (*TRAIN, "min_rating=9"), "nothing is left of 60 interactions"),
    "k_core too large": (log, (*TRAIN, "k_core=99"), r"nothing is left of 60 interactions \(99-core\)"),
    "temporal without times": (text("a.csv", "user,item\n1,2\n1,3\n"), ("train", "data=a.csv", "split=temporal"), "needs a column of times: give time_column"),
    "nothing to validate": (
        text("a.csv", "user,item\n" + "".join(f"{u},{i}\n" for u in range(20) for i in range(2))),
        ("train", "data=a.csv", "split=leave_one_out"), "a.csv: no validation item is left to choose the epoch by"),
    "nothing to test": (text("a.csv", "user,item\n1,2\n2,3\n"), ("train", "data=a.csv"), "leaves no test item for any user"),
    # folders
    "no train": (folder_of(test_csv="user,item\n1,2\n"), ("train", "data=d"), "no train.* is there"),
    "no test": (folder_of(train_csv="user,item\n1,2\n"), ("train", "data=d"), "no test.* is there"),
    "two trains": (folder_of(train_csv="x", train_tsv="x"), ("train", "data=d"), "are both there; keep one"),
    "empty test": (
        folder_of(train_txt="0 1 2 3\n1 2 3\n", test_txt=""), ("train", "data=d"), "d: there is no test item"),
    "overlap": (folder_of(train_csv="user,item\n1,2\n", test_csv="user,item\n1,2\n"), ("train", "data=d"), "pairs are in train and in test"),
    "cold users": (folder_of(train_csv="user,item\n1,2\n", test_csv="user,item\n9,2\n"), ("train", "data=d"), 'use cold_users="drop"'),
    "repeated pair": (folder_of(train_txt="0 1 1\n", test_txt="0 2\n"), ("train", "data=d"), 'use duplicates="merge"'),
    "LightGCN without test": (folder_of(train_txt="0 1\n"), ("train", "data=d"), "test.txt: no such file"),
    "LightGCN with words": (folder_of(train_txt="0 one\n", test_txt="0 2\n"), ("train", "data=d"), "train.txt:1: expected integers"),
    "LightGCN negative id": (folder_of(train_txt="0 -1\n", test_txt="0 2\n"), ("train", "data=d"), r"ids must lie in \[0, 2\^31\)"),
    "empty train": (folder_of(train_txt="", test_txt="0 2\n"), ("train", "data=d"), "the training data is empty"),
    # settings
    "unknown key": (log, (*TRAIN, "learning_rate=1"), "unknown key 'learning_rate'"),
    "misspelt key": (log, (*TRAIN, "epoch=1"), "unknown key 'epoch'; did you mean epochs"),
    "no cut-off": (text("s.yaml", "ks: []\n"), ("train", "s.yaml"), "ks: Tuple should have at least 1 item"),
    "key twice": (log, (*TRAIN, "lr=1", "lr=2"), "lr is given twice; keep one"),
    "no equals sign": (log, (*TRAIN, "lr"), "expected key=value, got 'lr'"),
    "negative number": (log, (*TRAIN, "lr=-1"), "lr: Input should be greater than 0, got '-1'"),
    "infinite number": (log, (*TRAIN, "lr=inf"), "lr: Input should be a finite number, got 'inf'"),
    "negative seed": (log, (*TRAIN, "seed=-1"), "seed: Input should be greater than or equal to 0, got '-1'"),
    "huge seed": (log, (*TRAIN, f"split_seed={10**30}"), "split_seed: Input should be less than"),
    "no integer": (log, (*TRAIN, "epochs=1.5"), "epochs: .*integer.*, got '1.5'"),
    "unknown choice": (log, (*TRAIN, "model=vae"), "model: Input should be 'mf' or 'lightgcn', got 'vae'"),
    "unknown strategy": (log, (*TRAIN, "tau=cold"), "tau: .*weight_v0.*, got 'cold'"),
    "unknown recipe": (log, (*TRAIN, "recipe=pasta"), "recipe must be one of yelp2018-mf"),
    "unknown metric": (log, (*TRAIN, "select_by=mrr@5"), "select_by must be one of recall@10"),
    "fraction beyond 1": (log, (*TRAIN, "test_fraction=2"), "test_fraction: Input should be less than 1"),
    "temperature of nothing": (log, (*TRAIN, "loss=mse", "tau=0.1"), "loss=mse has no temperature: leave tau out, or tau=1, got 0.1"),
    "closed form without cosines": (log, (*TRAIN, "normalize=none"), "tau=weight_mean is of cosines: normalize=both, or give tau a number"),
    "denominator of Adap-tau": (log, (*TRAIN, "denominator=all"), "that of tau=weight_mean is its mode's"),
    "denominator of nothing": (log, (*TRAIN, "loss=bpr", "tau=1", "denominator=all"), "denominator is of loss=softmax, got loss=bpr"),
    "no cosines": (log, (*TRAIN, "loss=direct_au", "normalize=none"), "loss=direct_au is of cosines: normalize=both, got none"),
    "batch of one": (log, (*TRAIN, "negatives=in_batch", "batch_size=1"), "batch_size must be at least 2"),
    "valid of paper": (log, (*TRAIN, "protocol=paper", "valid_fraction=0.2"), "valid_fraction is of protocol=clean"),
    "loss without temperature": (log, (*TRAIN, "loss=bpr"), "loss=bpr has no temperature to adapt: give tau a number"),
    "precision of nothing": (log, (*TRAIN, "precision=bfloat16"), "precision is of loss=softmax with negatives=in_batch or full"),
    "loss and negatives": (log, (*TRAIN, "loss=bsl", "tau=1", "negatives=full"), "loss=bsl compares the rows of a batch"),
    "no such settings": (nothing, ("train", "a.yaml"), "a.yaml: no such file"),
    "broken YAML": (text("a.yaml", "lr: [1"), ("train", "a.yaml"), "a.yaml: .*expected"),
    "broken TOML": (text("a.toml", "lr = "), ("train", "a.toml"), "a.toml: .*[Ii]nvalid"),
    "YAML list": (text("a.yaml", "- lr"), ("train", "a.yaml"), "expected `key: value` lines, got a list"),
    "settings last": (text("a.yaml", "lr: 1"), ("train", "lr=1", "a.yaml"), "a configuration file comes first"),
    "no GPU": (log, (*TRAIN, "device=cuda"), "device=cuda: .*(CUDA|GPU)"),
    "no device": (log, (*TRAIN, "device=abacus"), r"device: .*cpu\|cuda.*, got 'abacus'"),
    "other run's folder": (
        several(log, run(results=False)), (*TRAIN, "output=r"), "r holds a run of another configuration; choose another"),
    "output is a file": (several(log, text("f", "")), (*TRAIN, "output=f"), "f: .*[Ee]xists"),
    # runs and models
    "no run": (nothing, ("evaluate", "nowhere"), "nowhere: no run is there; a run is a folder written by"),
    "unfinished run": (run(results=False), ("evaluate", "r"), "the run is not done; the command that started it"),
    "damaged run": (run(), ("report", "r"), "r: a file of the run is damaged"),
    "no model": (nothing, ("recommend", "nowhere", "--output", "a.csv"), "nowhere: no run is there"),
    "unknown user": (model, ("recommend", "m", "--user", "zoe"), "user 'zoe' is not among the 2 users"),
    "nobody to print for": (model, ("recommend", "m"), "give --output FILE for all users, or --user ID"),
    "user and users": (model, ("recommend", "m", "--user", "a", "--users", "f"), "give --user or --users, not both"),
    "no users file": (model, ("recommend", "m", "--users", "f"), "f: no such file"),
    "empty users file": (several(model, text("f", "\n")), ("recommend", "m", "--users", "f"), "f: no id in it"),
    "unknown output": (model, ("recommend", "m", "--output", "a.xlsx"), "a.xlsx: tables are written as .csv"),
    "unknown output of metrics": (nothing, ("evaluate", "r", "--output", "a.xlsx"), "a.xlsx: tables are written as .csv"),
    "no output folder": (model, ("recommend", "m", "--output", "x/a.csv"), "x: no such folder; make it first"),
    "k is none": (model, ("recommend", "m", "-k", "0", "--user", "a"), "Invalid value for '-k': .*1"),
    "damaged model": (several(model, binary("m/items.parquet", b"")), ("recommend", "m", "--user", "a"), "changed since it was written; train again"),
    "unknown format": (model, ("export", "m", "word"), "formats are numpy, parquet, .*, got 'word'"),
    "unknown data set": (nothing, ("fetch", "netflix"), "data sets to fetch are yelp2018, gowalla, got 'netflix'"),
    "unknown flag": (nothing, ("doctor", "--fast"), "No such option:? .?--fast"),
    "unknown command": (nothing, ("cook",), "No such command 'cook'"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_one_line_says_what_is_wrong(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, words, message = CASES[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    result = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "400", "NO_COLOR": "1"})
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output
    lines = [line for line in result.output.splitlines() if re.search("[a-z]", line)]
    said = [line for line in lines if not line.lstrip().startswith(("Usage:", "Try", "╭"))]
    assert len(said) == 1, result.output
    assert re.search(message, said[0]), said[0]


def test_there_are_enough() -> None:
    assert len(CASES) >= 60
