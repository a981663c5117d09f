"""Optuna: a search for the best fixed temperature, beside one run of Adap-tau.

    pip install optuna
    python examples/optuna_tau.py path/to/ml-100k/ml-100k.inter
    python examples/optuna_tau.py                            # the built-in data set

A fixed tau has to be searched for: a run for each candidate, bad ones stopped early. Adap-tau sets a
temperature for each user in closed form, in one run. Epochs and tau are chosen on validation items;
what is printed of test is the search's best and Adap-tau's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import optuna

from adaptau_ext.data import Interactions, load, synthetic
from adaptau_ext.training import EpochResult, TrainConfig, Trainer

METRIC = "recall@20"


def train(
    data: Interactions, tau: float | str, epochs: int, trial: optuna.Trial | None = None
) -> tuple[float, float]:
    """The best epoch's recall@20 on validation items, and on test.

    Raises:
        optuna.TrialPruned: if the trial does worse than others did at its age.
    """
    config = TrainConfig(tau=tau, epochs=epochs, lr=5e-3, n_negatives=256, ks=(20,))
    trainer = Trainer(config, data)
    for event in trainer.run():
        if trial is not None and isinstance(event, EpochResult):
            trial.report(event.metrics[METRIC], event.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
    trainer.load_best()
    test = trainer.evaluate_test().means()[METRIC]
    return trainer.results[trainer.best].metrics[METRIC], test


def main(argv: Sequence[str] | None = None) -> None:
    """Searches, then runs Adap-tau."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", help="a file or a folder of interactions")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=60, help="of a run, at most")
    parser.add_argument("--tau", default="weight_mean", help="Adap-tau's strategy")
    arguments = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load(arguments.data) if arguments.data else synthetic()

    def objective(trial: optuna.Trial) -> float:
        tau = trial.suggest_float("tau", 0.03, 1.0, log=True)
        valid, test = train(data, tau, arguments.epochs, trial)
        trial.set_user_attr("test", test)
        return valid

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    started = time.perf_counter()
    study.optimize(objective, n_trials=arguments.trials)
    seconds = time.perf_counter() - started
    best, pruned = study.best_trial, study.get_trials(states=[optuna.trial.TrialState.PRUNED])
    report("best fixed tau", best.value, best.user_attrs["test"], seconds)
    print(
        f"    tau = {best.params['tau']:.3f} of {len(study.trials)} tried, {len(pruned)} stopped early"
    )
    started = time.perf_counter()
    valid, test = train(data, arguments.tau, arguments.epochs)
    report("Adap-tau", valid, test, time.perf_counter() - started)


def report(what: str, valid: float, test: float, seconds: float) -> None:
    """One line."""
    print(f"{what:15s} {METRIC} {test:.4f} on test, {valid:.4f} on valid, {seconds:.1f} s")


if __name__ == "__main__":
    main()
