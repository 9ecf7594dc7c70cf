"""What `medvision plan` does: measure the data, plan, and write the recipe."""

import contextlib
import re
import shlex
import time
from pathlib import Path

from apps.cli.medvision.plan import PlanOptions
from apps.cli.shared.program import COMPLETE
from medvision.datasets.fingerprint import take_fingerprint
from medvision.datasets.layouts import Case, find_cases, is_nnunet
from pipelines.recipe.loading import check_recipe
from pipelines.recipe.planning import Plan, plan
from pipelines.runtime.memory import keep_freed_memory
from pipelines.runtime.progress import Meter
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable, replacing
from shared_backbones.terminal import say

_CPU_GIGABYTES = 8.0
_TIMED_STEPS = 3


def plan_training(options: PlanOptions) -> int:
    """Write a recipe for a data set."""
    root = options.data
    if not root.is_dir():
        raise InputError(f"{printable(root)}: not a folder; give the folder of the labelled volumes")
    name = options.name or re.sub(r"[^A-Za-z0-9_.-]+|^[^A-Za-z0-9]+", "_", root.resolve().name).strip("_.-") or "plan"
    output = options.output or Path(f"{name}.yaml")
    if output.exists():
        raise InputError(f"{printable(output)}: already there; give another --output, or remove it")
    layout, cases = _find(root, options)
    with contextlib.closing(Meter("measure", lines=not options.quiet)) as meter:
        fingerprint = take_fingerprint(cases, root, options.modality or (), meter)
    memory, gpu = _memory()
    split: dict[str, object] = {"options": {"test_share": options.test_share}} if options.test_share else {}
    settings = {
        "name": name,
        "data": {"root": str(root), "layout": layout, **split},
        "memory_gb": options.memory or memory,
        "width": options.width or (32 if gpu else 16),
    }
    planned = plan(fingerprint, **settings)
    if options.hours:
        seconds = _seconds_of_a_step(planned)
        steps = max(10, int(options.hours * 3600 / seconds))
        reason = f"{options.hours:g} hours at {seconds:.2g} seconds a step, timed on this machine"
        planned = plan(fingerprint, **settings, steps=steps, steps_reason=reason)
    check_recipe(planned.recipe, str(output))
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as temporary:
        temporary.write_text(planned.text(f"medvision run {shlex.quote(str(output))}"), encoding="utf-8")
    if not options.quiet:
        _print(planned, output, len(cases))
    return COMPLETE


def _find(root: Path, options: PlanOptions) -> tuple[str, list[Case]]:
    if options.layout:
        return options.layout, find_cases(options.layout, root)
    if is_nnunet(root):
        return "nnunet", find_cases("nnunet", root)
    for layout, folder in (("msd", "labelsTr"), ("pairs", "labels")):
        if (root / folder).is_dir():
            return layout, find_cases(layout, root)
    raise InputError(
        f"{printable(root)}: contains no labelsTr (layout msd) and no labels (layout pairs); name another with --layout"
    )


def _memory() -> tuple[float, bool]:
    """Gigabytes that a step may take by default, and whether they are a GPU's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 1e9 * 0.9, True
    return _CPU_GIGABYTES, False


def _seconds_of_a_step(planned: Plan) -> float:
    """Seconds of an optimiser's step on this machine: the quickest of a few."""
    import torch

    from pipelines.recipe.recipe import Recipe
    from pipelines.training.tasks.segmentation import SegmentationTask
    from shared_backbones import architectures

    require("lightning", "train")
    keep_freed_memory()  # as a training does
    recipe = Recipe.model_validate(planned.recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = architectures.build(recipe.model.architecture, recipe.model.arguments).to(device).train()
    task = SegmentationTask(network, recipe.train, 1, [str(entry["name"]) for entry in recipe.card["classes"]])
    task.log = lambda *arguments, **options: None
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    channels = recipe.model.arguments["in_chans"]
    images = torch.randn(recipe.train.batch_size, channels, *recipe.data.model_dump()["patch"], device=device)
    targets = (images[:, 0] > 1).to(torch.uint8)
    taken = []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        task.training_step((images, targets), 0).backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - started)
    return min(taken)


def _print(planned: Plan, output: Path, cases: int) -> None:
    say(f"{printable(output)}: planned from {cases} cases; a training step takes about {planned.gigabytes:.1f} GB")
    for key, reason in planned.reasons.items():
        say(f"  {key}: {reason}")
