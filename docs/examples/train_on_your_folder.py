"""Train a classifier on folders of images by class: python train_on_your_folder.py FOLDER"""

import sys
from pathlib import Path

from pipelines.recipe.loading import load_recipe
from pipelines.stages import Job, run_stages

COLOURS = [[68, 119, 170], [238, 102, 119], [34, 136, 51], [204, 187, 68]]


def main(folder: str, *changes: str) -> Job:
    names = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    classes = [{"id": n, "name": name, "color": COLOURS[n % len(COLOURS)]} for n, name in enumerate(names)]
    recipe = load_recipe(
        "pneumoniamnist_medvitv2_cpu",
        [
            f"data.root={folder}", "data.layout=folders", f"card.classes={classes}", "name=my_classes",
            f"model.arguments.num_classes={len(names)}", *changes,
        ],
    )  # fmt: skip
    job = run_stages(recipe)
    print(job.summary["figures"] if job.summary else "nothing to evaluate on", job.model)
    return job


if __name__ == "__main__":
    main(*sys.argv[1:])
