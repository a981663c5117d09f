"""Temperatures of the softmax loss: in closed form (Adap-tau), learned, or fixed."""

from adaptau_ext.temperature.adaptive import AdaptiveTemperature, Strategy
from adaptau_ext.temperature.lambert import lambert_w
from adaptau_ext.temperature.temperature import FixedTemperature, LearnedTemperature, Temperature

__all__ = [
    "AdaptiveTemperature",
    "FixedTemperature",
    "LearnedTemperature",
    "Strategy",
    "Temperature",
    "lambert_w",
]
