"""Interactions: who took what, split into train and test, with integer ids and the ids that people use.

files.py, lightgcn.py   files -> Log, or data that is split already
log.py                  ids, ratings, times; filters
splits.py               Log -> Interactions
load.py                 all of that for one path
interactions.py         what training and evaluation read
"""

from adaptau_ext.data.files import read_log
from adaptau_ext.data.interactions import Interactions
from adaptau_ext.data.lightgcn import read_lightgcn
from adaptau_ext.data.load import Preparation, load
from adaptau_ext.data.log import Columns, Log
from adaptau_ext.data.noise import add_noise
from adaptau_ext.data.splits import Split, split_log
from adaptau_ext.data.synthetic import synthetic
from adaptau_ext.errors import DataError

__all__ = [
    "Columns",
    "DataError",
    "Interactions",
    "Log",
    "Preparation",
    "Split",
    "add_noise",
    "load",
    "read_lightgcn",
    "read_log",
    "split_log",
    "synthetic",
]
