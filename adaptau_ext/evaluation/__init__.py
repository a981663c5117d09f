"""Evaluation by full ranking: metrics, popularity groups, beyond accuracy, significance."""

from adaptau_ext.evaluation.popularity import beyond_accuracy, group_recall, popularity_groups
from adaptau_ext.evaluation.ranking import METRICS, Evaluation, UserMetrics, evaluate, evaluate_users
from adaptau_ext.evaluation.significance import Comparison, compare

__all__ = [
    "METRICS",
    "Comparison",
    "Evaluation",
    "UserMetrics",
    "beyond_accuracy",
    "compare",
    "evaluate",
    "evaluate_users",
    "group_recall",
    "popularity_groups",
]
