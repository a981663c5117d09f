"""What a run depends on."""

from __future__ import annotations

import difflib
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adaptau_ext.data import Columns, Preparation, Split
from adaptau_ext.errors import ConfigError
from adaptau_ext.evaluation import METRICS
from adaptau_ext.ops import Denominator, Normalize, Precision
from adaptau_ext.recipes import RECIPES
from adaptau_ext.temperature import Strategy

_short = reprlib.Repr()  # what a file holds may be of any size
_short.maxstring = _short.maxother = 80
_short.maxlevel = 2

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LossName = Literal["softmax", "bpr", "bce", "mse", "ccl", "direct_au", "bsl"]
Negatives = Literal["sampled", "in_batch", "full"]

# Losses that compare the rows of a batch with each other.
IN_BATCH_ONLY = ("direct_au", "bsl")
# Losses of a positive's score and its negatives'.
POINTWISE = ("bpr", "bce", "mse", "ccl")
# Losses that divide no score by a temperature.
WITHOUT_TAU = ("mse", "ccl", "direct_au")


class TrainConfig(BaseModel):
    """Everything a run depends on. Defaults are those of the built-in data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field(
        default="synthetic",
        description="a file (.csv, .tsv, .inter, .parquet, .npz), a folder with train.* and test.* "
        'files, or "synthetic"',
    )
    user_column: str | None = Field(
        default=None,
        description="of users; default: found by its name; a number, 0 the first, if no header",
    )
    item_column: str | None = Field(default=None, description="of items")
    rating_column: str | None = Field(default=None, description="of ratings, for min_rating")
    time_column: str | None = Field(default=None, description="of times, for the split")
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        default=None, description="of columns; default: by the file's name"
    )
    min_rating: Finite | None = Field(
        default=None, description="lower ratings are left out; default: every interaction counts"
    )
    k_core: Annotated[int, Field(ge=0)] = Field(
        default=0, description="users and items with fewer partners are left out, until none is left"
    )
    split: Split = Field(
        default="random",
        description="of one file: random (by user), leave_one_out (the last), temporal (one moment)",
    )
    test_fraction: Fraction = Field(default=0.2, description="of one file, held out for the test")
    protocol: Literal["clean", "paper"] = Field(
        default="clean",
        description="clean: train without valid, choose the epoch on valid, test once; paper: train on "
        "everything and choose the epoch on test, as published numbers were",
    )
    valid_fraction: Fraction | None = Field(
        default=None,
        description="of train, cut as valid; default: the data's own valid items, or 0.1 without any",
    )
    noise: NotNegative = Field(
        default=0.0, description="interactions that never were, added to train, as a share of it"
    )
    noise_by: Literal["activity", "user"] = Field(
        default="activity",
        description="noise of a user: in proportion to its interactions, or the same for all",
    )
    model: Literal["mf", "lightgcn"] = Field(
        default="mf", description="matrix factorisation, or the same smoothed over the graph"
    )
    dim: Count = Field(default=64, description="embedding size d")
    n_layers: Annotated[int, Field(ge=0)] = Field(default=3, description="hops of lightgcn")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="mf: of the batch's user rows; lightgcn: of each hop's output"
    )
    loss: LossName = Field(default="softmax", description="ccl is SimpleX's, bsl bilateral softmax")
    negatives: Negatives | None = Field(
        default=None,
        description="sampled, in_batch or full (the whole catalogue); default: sampled for mf, "
        "in_batch for lightgcn, direct_au and bsl",
    )
    n_negatives: Count = Field(
        default=1024, description="negatives drawn for each interaction, if sampled"
    )
    precision: Precision = Field(
        default="float32",
        description="of the softmax's products with in_batch or full negatives; bfloat16 is faster",
    )
    normalize: Normalize = Field(
        default="both", description="embeddings that become unit vectors: both, user, item or none"
    )
    tau: Literal[Strategy, "learned", "learned_per_user"] | Positive = Field(
        default="weight_mean",
        description="weight_v0 (Adap-tau0), weight_mean or weight_ratio (Adap-tau), learned (C-tau), "
        "learned_per_user (Cu-tau), or a fixed number; mse, ccl and direct_au have none",
    )
    initial_tau: Positive = Field(default=0.1, description="of learned temperatures, before training")
    denominator: Denominator | None = Field(
        default=None,
        description="of the softmax with a fixed or learned tau: with the positive (all) or without it "
        "(negatives); default: all; Adap-tau's is its mode's",
    )
    mode: Literal["official", "paper"] = Field(
        default="official",
        description="Adap-tau as in the published experiments, or as in the paper's text",
    )
    variance: bool = Field(default=False, description="Adap-tau's form of tau0 with variances")
    warmup_epochs: Annotated[int, Field(ge=0)] = Field(
        default=100,
        description="epochs of Adap-tau, as published, with 0.7 for mu+ - mu, which is tiny at first; "
        "of up to so many epochs all have one tau0",
    )
    t1: Annotated[float, Field(ge=0, le=1)] = Field(default=1.0, description="quantile of weight_ratio")
    t2: Positive | None = Field(
        default=None,
        description="spread of the users' temperatures: larger = more alike; default 1, paper: 2",
    )
    positive_tau: Positive = Field(default=0.1, description="temperature of the positives in bsl")
    margin: Finite = Field(default=0.4, description="of negatives in ccl")
    negative_weight: Positive = Field(default=1.0, description="of negatives in ccl")
    gamma: Positive = Field(default=1.0, description="weight of uniformity in direct_au")
    batch_size: Count = Field(default=2048, description="interactions a step")
    lr: Positive = Field(default=1e-3, description="Adam's learning rate")
    tau_lr: Positive | None = Field(default=None, description="of learned temperatures; default: lr")
    l2: NotNegative = Field(default=1e-7, description="weight of the rows used, squared")
    epochs: Count = Field(default=100, description="passes over the training interactions, at most")
    patience: Count | None = Field(
        default=10, description="epochs without a better one after which training stops; none: never"
    )
    select_by: str | None = Field(
        default=None,
        description="metric that makes an epoch the best; default: recall at the middle one of ks",
    )
    ks: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        default=(10, 20, 50), description="evaluation cut-offs"
    )
    ranking: Normalize | None = Field(
        default=None,
        description="embeddings that are unit vectors in the scores of evaluation; default: none for "
        "lightgcn, as published, otherwise as in `normalize`",
    )
    seed: Seed = Field(default=0, description="of initialisation, order, negatives and dropout")
    split_seed: Seed = Field(
        default=0, description="of what is held out, of noise and of the built-in data"
    )
    cold_users: Literal["error", "drop", "keep"] = Field(
        default="error", description="no training items"
    )
    duplicates: Literal["error", "merge"] = Field(default="error", description="repeated pairs")
    shard: bool = Field(
        default=False,
        description="split the tables over torchrun's processes, for catalogues that do not fit one: "
        "mf with negatives=full",
    )
    device: str | None = Field(
        default=None,
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="cpu or cuda; default: cuda where there is a GPU and this package's kernels",
    )
    threads: Count | None = Field(default=None, description="CPU threads; default: PyTorch's")
    output: Path | None = Field(
        default=None,
        description="folder for config.json, metrics.jsonl, results.json, model.pt; default: a new one "
        "in runs/",
    )

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("output") == "":
            raise ValueError("output must name a folder, got an empty name")
        if values.get("patience") == "none":
            values["patience"] = None
        if values.get("delimiter") == "\\t":  # as it is written in a shell
            values["delimiter"] = "\t"
        for name in ("user_column", "item_column", "rating_column", "time_column"):
            if type(values.get(name)) is int:  # a place, as YAML reads it
                values[name] = str(values[name])
        if values.get("loss") in WITHOUT_TAU:
            values.setdefault("tau", 1.0)
        if values.get("negatives") is None:
            in_batch = values.get("model") == "lightgcn" or values.get("loss") in IN_BATCH_ONLY
            values["negatives"] = "in_batch" if in_batch else "sampled"
        return values

    @property
    def preparation(self) -> Preparation:
        """What is done to a log of interactions before training."""
        columns = self.user_column, self.item_column, self.rating_column, self.time_column
        return Preparation(
            Columns(*columns),
            self.delimiter,
            self.min_rating,
            self.k_core,
            self.split,
            self.test_fraction,
            self.valid_fraction or 0.1,
            self.split_seed,
        )

    @property
    def best_metric(self) -> str:
        """`select_by`, or its default."""
        return self.select_by or f"recall@{self.ks[len(self.ks) // 2]}"

    @property
    def idle(self) -> list[str]:
        """Settings that are not the default, but count for nothing beside the others."""
        adaptive, learned = self.tau in get_args(Strategy), str(self.tau).startswith("learned")
        counts = {
            "rating_column": self.min_rating is not None,
            "time_column": self.split != "random",
            "test_fraction": self.split != "leave_one_out",
            "n_layers": self.model == "lightgcn",
            "noise_by": self.noise > 0,
            "n_negatives": self.negatives == "sampled",
            **dict.fromkeys(("mode", "warmup_epochs"), adaptive),
            "variance": adaptive and self.warmup_epochs < self.epochs,
            "t1": self.tau == "weight_ratio",
            "t2": adaptive and self.tau != "weight_v0",
            **dict.fromkeys(("initial_tau", "tau_lr"), learned),
            "positive_tau": self.loss == "bsl",
            **dict.fromkeys(("margin", "negative_weight"), self.loss == "ccl"),
            "gamma": self.loss == "direct_au",
        }
        fields = type(self).model_fields
        return [n for n, count in counts.items() if not count and getattr(self, n) != fields[n].default]

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.loss in IN_BATCH_ONLY and self.negatives != "in_batch":
            raise ValueError(f"loss={self.loss} compares the rows of a batch: negatives=in_batch")
        if self.negatives == "in_batch" and self.batch_size < 2:
            raise ValueError(
                "batch_size must be at least 2 where rows are each other's negatives, got 1"
            )
        if self.loss in IN_BATCH_ONLY and self.normalize != "both":
            raise ValueError(f"loss={self.loss} is of cosines: normalize=both, got {self.normalize}")
        if self.loss in WITHOUT_TAU and self.tau != 1:
            raise ValueError(
                f"loss={self.loss} has no temperature: leave tau out, or tau=1, got {self.tau}"
            )
        if self.protocol == "paper" and self.valid_fraction is not None:
            raise ValueError("valid_fraction is of protocol=clean: paper trains on everything")
        if self.loss in POINTWISE and self.negatives == "full":
            raise ValueError(f"loss={self.loss} takes sampled or in_batch negatives, got full")
        if self.precision != "float32" and (self.loss != "softmax" or self.negatives == "sampled"):
            raise ValueError(
                "precision is of loss=softmax with negatives=in_batch or full, got "
                f"loss={self.loss}, negatives={self.negatives}"
            )
        if self.loss != "softmax" and self.denominator is not None:
            raise ValueError(f"denominator is of loss=softmax, got loss={self.loss}")
        if self.loss != "softmax" and not isinstance(self.tau, float):
            raise ValueError(
                f"loss={self.loss} has no temperature to adapt: give tau a number, like 0.1"
            )
        if self.tau in get_args(Strategy):
            if self.normalize != "both":
                raise ValueError(
                    f"tau={self.tau} is of cosines: normalize=both, or give tau a number; the paper's "
                    f"is 1 where embeddings keep their lengths; got normalize={self.normalize}"
                )
            if self.denominator is not None:
                raise ValueError(
                    f"denominator is of a fixed or learned tau: that of tau={self.tau} is its mode's"
                )
        names = [f"{name}@{k}" for k in self.ks for name in METRICS]
        if self.best_metric not in names:
            raise ValueError(f"select_by must be one of {', '.join(names)}, got {self.select_by!r}")
        return self


def with_recipe(values: dict[str, Any]) -> dict[str, Any]:
    """Settings by name, with those of `recipe` that they do not give.

    Raises:
        ConfigError: for a recipe that is none.
    """
    values = dict(values)
    recipe = values.pop("recipe", None)
    if recipe is None:
        return values
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)}, got {_short.repr(recipe)}")
    published = dict(RECIPES[recipe])
    if values.get("loss") in WITHOUT_TAU:
        published.pop("tau", None)
    return {**published, **values}


def make_config(values: dict[str, Any]) -> TrainConfig:
    """A configuration of settings by name; `recipe` names published ones, which the others override.

    Raises:
        ConfigError: one line, for a key that is none, or a value that does not fit.
    """
    values = with_recipe(values)
    for key in values:
        if key not in TrainConfig.model_fields:
            near = difflib.get_close_matches(str(key)[:80], [*TrainConfig.model_fields, "recipe"], 1)
            hint = f"did you mean {near[0]}?" if near else "`adaptau train --help` lists the keys"
            raise ConfigError(f"unknown key {_short.repr(key)}; {hint}")
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        if not first["loc"]:  # of several keys together
            raise ConfigError(first["msg"].removeprefix("Value error, ")) from None
        key = str(first["loc"][0])
        expected = "; ".join(e["msg"] for e in problem.errors() if e["loc"][0] == key)
        raise ConfigError(f"{key}: {expected}, got {_short.repr(values[key])}") from None


def what_matters(config: str) -> dict[str, Any]:
    """Of a configuration in JSON; a run may be resumed elsewhere, and for longer."""
    try:
        values = TrainConfig.model_validate_json(config).model_dump()  # with keys that came later
    except ValueError:
        return {}
    for key in ("output", "threads", "device", "epochs", "patience"):
        values.pop(key, None)
    return values
