"""Errors that whoever calls can mend."""


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
