"""Hyper-parameters of the published Adap-tau runs, by name: `adaptau train recipe=gowalla-mf`.

Source: the logs published with the paper's code (WWW 2023). `-tau0` is Adap-tau0, one temperature for
all users; the others are Adap-tau. Epochs were chosen on test there (protocol=paper), among as many as
here; training had stopped 51 epochs after the best one. For ml-1m nothing is published: what is here
was chosen on validation items cut from train (benchmarks/results/reproduction); its LightGCN is unlike
the published ones in its negatives, which are the catalogue's, and in ranking by cosine.
"""

from __future__ import annotations

from typing import Any

_PUBLISHED: dict[str, Any] = {"protocol": "paper", "patience": None}
_LIGHTGCN: dict[str, Any] = {**_PUBLISHED, "model": "lightgcn"}
_YELP = {**_PUBLISHED, "lr": 1e-4, "l2": 1e-3, "dropout": 0.1}
_GOWALLA = {**_PUBLISHED, "lr": 1e-4, "l2": 1e-9, "dropout": 0.1}
_AMAZON = {**_PUBLISHED, "lr": 1e-3, "l2": 1e-7}
_YELP_LIGHTGCN = {**_LIGHTGCN, "lr": 1e-3, "l2": 0.1, "dropout": 0.1}
_GOWALLA_LIGHTGCN = {**_LIGHTGCN, "lr": 1e-3, "l2": 1e-5}
_UNTIL_BEST = {"epochs": 500, "patience": 51}
_ML_1M = {**_PUBLISHED, "lr": 1e-3, "l2": 1e-7, "warmup_epochs": 10, **_UNTIL_BEST}
_ML_1M_LIGHTGCN = {
    **_LIGHTGCN, "lr": 3e-4, "l2": 1e-5, "warmup_epochs": 10, "negatives": "sampled", "ranking": "both",
    **_UNTIL_BEST,
}  # fmt: skip
_AMAZON_LIGHTGCN = {**_LIGHTGCN, "lr": 1e-4, "l2": 0.1}

RECIPES: dict[str, dict[str, Any]] = {
    "yelp2018-mf": {**_YELP, "tau": "weight_mean", "epochs": 153},
    "yelp2018-mf-tau0": {**_YELP, "tau": "weight_v0", "epochs": 154},
    "gowalla-mf": {**_GOWALLA, "tau": "weight_ratio", "t1": 0.9, "t2": 0.25, "epochs": 366},
    "gowalla-mf-tau0": {**_GOWALLA, "tau": "weight_v0", "epochs": 309},
    "amazon-book-mf": {**_AMAZON, "tau": "weight_mean", "epochs": 169},
    "amazon-book-mf-tau0": {**_AMAZON, "tau": "weight_v0", "epochs": 347},
    "yelp2018-lightgcn": {**_YELP_LIGHTGCN, "tau": "weight_mean", "t2": 1.5, "epochs": 70},
    "yelp2018-lightgcn-tau0": {**_YELP_LIGHTGCN, "tau": "weight_v0", "epochs": 70},
    "gowalla-lightgcn": {**_GOWALLA_LIGHTGCN, "tau": "weight_mean", "t2": 0.6, "epochs": 142},
    "gowalla-lightgcn-tau0": {**_GOWALLA_LIGHTGCN, "tau": "weight_v0", "epochs": 152},
    "amazon-book-lightgcn": {**_AMAZON_LIGHTGCN, "tau": "weight_mean", "epochs": 152},
    "amazon-book-lightgcn-tau0": {**_AMAZON_LIGHTGCN, "tau": "weight_v0", "epochs": 153},
    "ml-1m-mf": {**_ML_1M, "tau": "weight_ratio", "t1": 0.9, "t2": 1.0},
    "ml-1m-mf-tau0": {**_ML_1M, "tau": "weight_v0"},
    "ml-1m-lightgcn": {**_ML_1M_LIGHTGCN, "tau": "weight_ratio", "t1": 0.9, "t2": 4.0},
    "ml-1m-lightgcn-tau0": {**_ML_1M_LIGHTGCN, "tau": "weight_v0"},
}
