"""Where benchmarks look for data sets: where `adaptau fetch` puts them, or beside the checkout."""

from pathlib import Path

_ROOT = Path(__file__).parents[1]
_FETCHED, _BESIDE = _ROOT / "data", _ROOT.parent / "shared" / "data"
DATA = _FETCHED if _FETCHED.exists() or not _BESIDE.exists() else _BESIDE
