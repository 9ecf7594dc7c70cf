"""Which learning rate, and how much of the difference is luck? python sweep.py RECIPE data.root=FOLDER"""

import csv
import sys

from pipelines.sweeps.plan import Axes, plan_sweep
from pipelines.sweeps.sweep import run_sweep

RATES = "train.learning_rate=1e-3,3e-4"


def main(recipe: str, *changes: str) -> list[dict[str, str]]:
    sweep = plan_sweep(recipe, changes, Axes(settings=[RATES], seeds="1-2"))
    if run_sweep(sweep):  # what is done already is not done again
        sys.exit(f"a run failed; {sweep.folder / 'runs.csv'} says why")
    with open(sweep.folder / "settings.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["figure"] == "test_accuracy"]
    for row in rows:
        print(f"{row['train.learning_rate']}: {row['mean']} ({row['lowest']} to {row['highest']})")
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:])
