"""Errors that whoever calls can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Input that cannot be used as it is; the message names it and says what to do."""


class DataError(InputError):
    """Data that cannot be used as it is; the message says where and what to do."""


class ModelError(InputError):
    """A folder that holds no usable model, or no usable run; the message says why."""


class TrainingError(InputError):
    """Training that cannot go on; the message says why and what is kept."""


class ConfigError(InputError):
    """Settings that do not fit; the message says which."""


@contextmanager
def reading(failure: str, way_out: str, error: type[InputError] = ModelError) -> Iterator[None]:
    """Whatever goes wrong with a file's content becomes one error: failure (why); way out.

    What the libraries below raise depends on the bytes, not on their documentation.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except RecursionError:
        raise error(f"{failure} (nested too deeply); {way_out}") from None
    except Exception as problem:
        line = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise error(f"{failure} ({line}); {way_out}") from None
