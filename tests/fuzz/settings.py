"""Settings: YAML and TOML files, and key=value words."""

from __future__ import annotations

import base64
from typing import Any

import hypothesis.strategies as st

from adaptau_ext.cli.settings import effective, read_settings
from adaptau_ext.training import TrainConfig
from adaptau_ext.training.config import make_config
from tests.fuzz.files import file, read, written
from tests.fuzz.target import Target

KEYS = (*TrainConfig.model_fields, "recipe", "lerning_rate", "")
VALUES = (
    "1", "-1", "0.5", "1e-3", "1e999", "nan", "true", "none", "null", "~", "[1, 2]", "{a: 1}", "'x'", "mf",
    "lightgcn", "softmax", "bpr", "full", "in_batch", "2026-13-45", "12:30:99", "0b", "0x", "0o9", "!!python/object:os.system {}",
    "!!set {a}", "!!binary x", "&a [*a]", "*b", "yelp2018-mf", "[", "%", "9" * 5000, "[" * 3000, "10,20", "<<",
)  # fmt: skip
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@st.composite
def yaml(draw: st.DrawFn) -> bytes:
    pairs = draw(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4))
    text = "".join(f"{key}: {value}\n" for key, value in pairs)
    if draw(st.integers(0, 9)) == 5:  # aliases of aliases, which stand for a billion words
        text = f"{LAUGHS}{draw(st.sampled_from(KEYS))}: *l\n"
    return text.encode()


@st.composite
def toml(draw: st.DrawFn) -> bytes:
    pairs = draw(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4))
    quote = draw(st.booleans())
    return "".join(f"{k} = {v!r}\n" if quote else f"{k} = {v}\n" for k, v in pairs).encode()


words = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)).map("=".join),
        st.sampled_from(["lr", "=", "==", "other.yaml", ""]),
    ),
    max_size=3,
)
cases = st.sampled_from(["a.yaml", "a.toml"]).flatmap(
    lambda name: st.fixed_dictionaries(
        {"name": st.just(name), "file": file(yaml() if name == "a.yaml" else toml()), "words": words}
    )
)


def check(case: dict[str, Any]) -> str:
    with written({case["name"]: case["file"]}) as folder:

        def reader() -> str:
            config = make_config(read_settings([str(folder / case["name"]), *case["words"]]))
            assert make_config(read_back(effective(config))) == config
            return f"settings {case['name']} {config.model} {config.loss}"

        return read(reader)


def read_back(text: str) -> dict[str, Any]:
    with written({"b.yaml": base64.b64encode(text.encode()).decode()}) as folder:
        return read_settings([str(folder / "b.yaml")])


REACHES = ("adaptau_ext/cli/settings.py", "adaptau_ext/training/config.py")
TARGETS = [Target("settings", cases, check, REACHES)]
