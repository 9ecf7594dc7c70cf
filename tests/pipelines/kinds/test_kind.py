"""What suits no data is refused before any are read."""

import importlib
from pathlib import Path

import pytest

from pipelines.kinds.kind import KINDS, Kind
from pipelines.recipe.images import LabelledPictures, MaskedImageData
from pipelines.recipe.loading import bundled_recipes, load_recipe
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import SyntheticSceneData
from pipelines.recipe.volumes import PatchData, SyntheticData, VolumeData
from pipelines.stages import run_stages
from shared_backbones import architectures
from shared_backbones.errors import InputError


def kind_of(recipe: Recipe) -> type[Kind]:
    module, _, name = KINDS[recipe.data.kind].partition(":")
    return getattr(importlib.import_module(module), name)


def shape_of(recipe: Recipe) -> tuple[int, ...]:
    """Shape `(C, H, W)` or `(C, X, Y, Z)` of an input, by the recipe alone."""
    data, arguments = recipe.data, recipe.model.arguments
    if isinstance(data, SyntheticData | VolumeData):
        return len(data.slices), data.size, data.size
    if isinstance(data, PatchData):
        return 1, *data.patch
    if isinstance(data, LabelledPictures | MaskedImageData):
        return arguments.get("in_chans", 3), data.size, data.size
    if isinstance(data, SyntheticSceneData):
        return 6, data.size, data.size
    size = arguments.get("img_size", data.patch)
    height, width = (size, size) if isinstance(size, int) else size
    return len(getattr(data, "bands", (0,))), height, width


@pytest.mark.parametrize("name", bundled_recipes())
def test_the_network_of_every_recipe_suits_its_data(name: str) -> None:
    recipe = load_recipe(name)
    model, classes = recipe.model, len(recipe.card.get("classes", ()))
    shape = shape_of(recipe)
    architectures.check(model.architecture, model.arguments, role=kind_of(recipe).role, shape=shape, classes=classes)


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "pneumoniamnist_medvitv2_cpu",
            ["model.architecture=hbformer", "model.arguments={num_classes: 2, in_channels: 3, img_size: 28}"],
            "'hbformer' has the role segmenter, expected classifier",
        ),
        (
            "pneumoniamnist_medvitv2_cpu",
            ["model.architecture=smp_unet", "model.arguments={num_classes: 2, in_channels: 1}"],
            "'smp_unet' has the role segmenter, expected classifier",
        ),
        (
            "hippocampus_unet_cpu",
            ["model.architecture=medvitv2", "model.arguments={num_classes: 3, in_chans: 5, tokens: spatial}"],
            "'medvitv2' has the role classifier, expected segmenter",
        ),
        ("hippocampus_unet_cpu", ["model.arguments.in_chans=3"], "takes 3 channels, the data have 5; give in_chans=5"),
        ("hippocampus_unet_cpu", ["model.arguments.num_classes=2"], "expected .2, 3, 96, 96. of a segmenter with 3 cl"),
    ],
)
def test_a_network_that_does_not_suit_is_refused_before_anything_is_made(
    recipe: str, overrides: list[str], message: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
        (data / folder / "case_1.nii.gz").touch()
    given = [f"data.root={data}", f"output={tmp_path / 'out'}", *overrides]
    with pytest.raises(InputError, match=message) as caught:
        run_stages(load_recipe(recipe, given))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
