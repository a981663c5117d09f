"""Published figures: the paper's tables, and the logs published with its code."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

from .arms import Row

TAU_MODES = {"adap_tau0": ("weight_v0",), "adap_tau": ("weight_mean", "weight_ratio")}


@dataclass(frozen=True)
class Result:
    """Recall@20 and NDCG@20, and where they stand."""

    recall: float
    ndcg: float
    source: str


class Published:
    """Reads official_results.csv, official_epochs.csv and paper_results.csv of a folder; of one that is not
    there, nothing, and says so."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            print(f"{folder}: no such folder, so no published numbers beside ours", file=sys.stderr)

        def read(name: str) -> list[dict[str, str]]:
            if not (folder / name).is_file():
                if folder.is_dir():
                    print(f"{folder / name}: no such file", file=sys.stderr)
                return []
            with (folder / name).open() as lines:
                return list(csv.DictReader(lines))

        self.logs, self.epochs = read("official_results.csv"), read("official_epochs.csv")
        self.paper = read("paper_results.csv")

    def of(self, wanted: Row) -> Result | None:
        """The log's final row if it is a full run and there is one, otherwise the paper's."""
        for row in self.logs if _is_full(wanted) else []:
            if self._same_run(row, wanted.labels):
                return Result(float(row["recall@20"]), float(row["ndcg@20"]), "log")
        return self.in_paper(wanted)

    def in_paper(self, wanted: Row) -> Result | None:
        """Of the paper's table."""
        keys = {"table": wanted.table, **wanted.labels}
        for row in self.paper:
            if all(row[key] == value for key, value in keys.items() if key in row):
                return Result(float(row["recall@20"]), float(row["ndcg@20"]), "paper")
        return None

    def log(self, wanted: Row) -> list[dict[str, str]]:
        """The published epochs of the same hyper-parameters, in order; none if there is no log."""
        same = _is_full(wanted) or wanted.table in ("seconds", "seeds")
        return [row for row in self.epochs if same and self._same_run(row, wanted.labels)]

    @staticmethod
    def _same_run(row: dict[str, str], labels: dict[str, str]) -> bool:
        return (
            row["dataset"] == labels["dataset"]
            and row["backbone"] == labels["backbone"]
            and row["tau_mode"] in TAU_MODES.get(labels["strategy"], ())
        )


def _is_full(row: Row) -> bool:
    return [arm.name.partition("-")[0] for arm in row.arms] == ["main"]
