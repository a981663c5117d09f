"""The paper's tables and figures, ours beside the published numbers.

    python benchmarks/reproduce.py main            Adap-tau0 and Adap-tau in full: a night on two cores
    python benchmarks/reproduce.py main --page     the page of what is done, without running anything

Resumable: what is done is kept, a run that was killed goes on at its last checkpoint. Data sets are folders
of LightGCN-format text in --data; published numbers are CSV files in --published.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from reproduction import arms, page, runs
from reproduction.published import Published

ROOT = Path(__file__).parents[1]
TABLES = {"main": arms.full_runs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", choices=TABLES, help="what to reproduce")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--published", type=Path, default=ROOT.parent / "shared" / "reference")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "reproduction")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--only", default="*", help="arms whose name matches, like main-gowalla-*")
    parser.add_argument("--page", action="store_true", help="write pages, run nothing")
    arguments = parser.parse_args()
    published = Published(arguments.published)
    for table in arguments.tables:
        chosen = [arm for arm in TABLES[table]() if fnmatch(arm.name, arguments.only)]
        if not arguments.page:
            for arm in chosen:
                runs.run(arm, arguments.data, arguments.runs, arguments.threads)
        done = [one for arm in chosen if (one := runs.load(arm, arguments.runs)) is not None]
        rows = [page.row(one, published) for one in done]
        (arguments.output / f"reproduction-{table}.md").write_text(page.markdown(rows))
        page.write_csv(rows, arguments.output / f"reproduction-{table}.csv")
        print(page.markdown(rows))


if __name__ == "__main__":
    main()
