"""`python -m tests.golden.write_trainings [NAME ...]`: run the small trainings and write what is expected of them.

Each is run a second time in a process that computes with other vector instructions, as another CPU does. Numbers that
rounding alone moves by more than a third of the tolerance are left out; that it changes stored bytes is an error. One
trained model of each kind is kept, too.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from tests.golden.programs import run_program
from tests.golden.summaries import TOLERANCE, Summary, differ, summarise
from tests.golden.trainings import MODELS, TRAININGS

EXPECTED = Path(__file__).with_name("trainings.json")
_OTHER_CPU = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


def run_training(name: str, folder: Path) -> Summary:
    """Make the data set of a training, run its recipe, and summarise what came of it."""
    training = TRAININGS[name]
    data, output, recipe = folder / "data", folder / "output", folder / "recipe.yaml"
    data.mkdir()
    training.make(data)
    recipe.write_text(json.dumps(training.recipe(name, data, output)))  # JSON is YAML
    torch.set_num_threads(1)  # sums in parts are rounded otherwise; a program that ran before may have taken more
    stages = "prepare,train,evaluate" if training.scored else "prepare,train"
    run_program(training.program, training.command, recipe, "--stages", stages)
    return summarise(output)


def _write(names: list[str]) -> None:
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    for name in names or TRAININGS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            here, there = (folder / part for part in ("here", "there"))
            for part in (here, there):
                part.mkdir()
            subprocess.run(
                [sys.executable, "-m", __spec__.name, "--summary", name, there], check=True, env=os.environ | _OTHER_CPU
            )
            found, other = run_training(name, here), json.loads((there / "summary.json").read_text())
            expected[name] = _stable(name, found, other)
            if kept := TRAININGS[name].model_name:
                (model,) = (here / "output").rglob("model.safetensors")
                shutil.rmtree(MODELS / kept, ignore_errors=True)
                shutil.copytree(model.parent, MODELS / kept)
        ordered = {key: expected[key] for key in TRAININGS if key in expected}
        EXPECTED.write_text(_lines(ordered) + "\n", encoding="utf-8")


def _stable(name: str, found: Summary, other: Summary) -> Summary:
    """What does not depend on the CPU."""
    assert found["cases"] == other["cases"], f"{name}: the stored bytes depend on the CPU"
    weights = {
        key: values
        for key, values in found["weights"].items()
        if not any(differ(*pair, TOLERANCE / 3) for pair in zip(values, other["weights"][key], strict=True))
    }
    figures = _close(found["figures"], other["figures"])
    counts = [
        f"{len(weights)} of {len(found['weights'])} tensors",
        f"{len(figures)} of {len(found['figures'])} figures",
    ]
    print(f"{name}: {len(found['cases'])} cases, {', '.join(counts)} do not depend on the CPU", flush=True)
    return {"cases": found["cases"], "weights": weights, "figures": figures}


def _close(found: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if not differ(value, other[name], TOLERANCE / 3)}


def _lines(content: Mapping[str, Summary]) -> str:
    """JSON with a line for each case and each number or row of numbers."""
    text = json.dumps(content, indent=1)
    for row in ("\n    ", "\n   ]"):
        text = text.replace(row, " " if row.endswith("    ") else "]")
    return text


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as store:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}/mlflow.db"
        if sys.argv[1:2] == ["--summary"]:
            _, name, place = sys.argv[1:]
            Path(place, "summary.json").write_text(json.dumps(run_training(name, Path(place))))
        else:
            _write(sys.argv[1:])
