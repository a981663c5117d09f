"""Hyper-parameters of the published Adap-tau runs, by name: `adaptau train recipe=gowalla-mf`.

Source: the logs published with the paper's code (WWW 2023). `-tau0` is Adap-tau0, one temperature for
all users; the others are Adap-tau.
"""

from __future__ import annotations

from typing import Any

_YELP: dict[str, Any] = {"lr": 1e-4, "l2": 1e-3, "user_dropout": 0.1, "epochs": 150}
_GOWALLA: dict[str, Any] = {"lr": 1e-4, "l2": 1e-9, "user_dropout": 0.1, "epochs": 370}
_AMAZON: dict[str, Any] = {"lr": 1e-3, "l2": 1e-7, "epochs": 350}

RECIPES: dict[str, dict[str, Any]] = {
    "yelp2018-mf": {**_YELP, "tau": "weight_mean"},
    "yelp2018-mf-tau0": {**_YELP, "tau": "weight_v0"},
    "gowalla-mf": {**_GOWALLA, "tau": "weight_ratio", "t1": 0.9, "t2": 0.25},
    "gowalla-mf-tau0": {**_GOWALLA, "tau": "weight_v0"},
    "amazon-book-mf": {**_AMAZON, "tau": "weight_mean"},
    "amazon-book-mf-tau0": {**_AMAZON, "tau": "weight_v0"},
}
