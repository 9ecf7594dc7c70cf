"""Recipes: what is read, what is refused, and in which words."""

import operator

import pytest

from pipelines.recipe.loading import load_recipe
from pipelines.recipe.scenes import SatelliteImageData
from pipelines.recipe.shown import shown
from pipelines.recipe.volumes import SyntheticData
from shared_backbones.errors import InputError

SMALL = """
name: small
data: {kind: synthetic_volumes, size: 32}
model: {architecture: hbformer}
train: {steps: 3}
"""


@pytest.fixture
def recipe(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return str(path)

    return write


def refusal(name: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(name, overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_the_bundled_recipe_trains_the_model_that_the_card_describes():
    recipe = load_recipe("brain_structures")
    assert isinstance(recipe.data, SyntheticData)
    assert recipe.model.arguments["num_classes"] == len(recipe.card["classes"]) == 10
    assert recipe.model.arguments["in_chans"] == len(recipe.data.slices)
    assert recipe.data.root is None and recipe.output is None


def test_a_file_and_its_defaults(recipe):
    loaded = load_recipe(recipe(SMALL))
    assert isinstance(loaded.data, SyntheticData)
    assert (loaded.name, loaded.data.size, loaded.train.steps) == ("small", 32, 3)
    assert (loaded.seed, loaded.train.batch_size, loaded.data.slices) == (0, 16, [-2, -1, 0, 1, 2])


def test_overrides_reach_every_depth_in_yaml_syntax(recipe):
    overrides = ["train.steps=7", "data.slices=[0]", "model.arguments.feature_size=8", "train.learning_rate=1e-3"]
    overrides += ["data.root=a=b", "seed=4", "train.threads=null"]
    loaded = load_recipe(recipe(SMALL), overrides)
    assert isinstance(loaded.data, SyntheticData)
    assert loaded.train.steps == 7 and loaded.train.learning_rate == 1e-3 and loaded.train.threads is None
    assert loaded.data.slices == [0] and loaded.data.root == "a=b" and loaded.seed == 4
    assert loaded.model.arguments == {"feature_size": 8}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.step=7", ["train.step: unknown key", "did you mean steps?"]),
        ("trian.steps=7", ["trian: unknown key", "did you mean train?"]),
        ("data.zzz=1", ["data.zzz: unknown key", "expected one of: root, kind, synthesis, slices"]),
        ("train.steps=many", ["train.steps:", "integer"]),
        ("train.steps=0", ["train.steps:", "greater than 0"]),
        ("train.strategy=fsdp", ["train: strategy=fsdp: found ema_decay=0.998, expected ema_decay=0"]),
        ("train.ema_decay=1", ["train.ema_decay:", "less than 1"]),
        ("train.local_copy=/tmp", ["train.local_copy: synthetic slices are drawn from files"]),
        ("seed=-1", ["seed:", "greater than or equal to 0"]),
        ("train.steps", ["'train.steps'", "expected section.key=value"]),
        ("name.first=1", ["'name.first=1'", "'name' is not a section"]),
        ("data.slices=[1", ["'data.slices=[1'", "is not YAML"]),
    ],
)
def test_a_bad_override_is_named(recipe, override, parts):
    line = refusal(recipe(SMALL), override)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not YAML"),
        ("- a\n- b\n", "found list, expected a YAML mapping"),
        ("", "found NoneType"),
        ("name: x\n", "Field required"),
        (SMALL + "steps: 3\n", "steps: unknown key"),
    ],
)
def test_a_bad_file_is_named(recipe, text, message):
    path = recipe(text)
    line = refusal(path)
    assert line.startswith(path) and message in line


def test_a_fault_is_blamed_on_the_override_that_made_it_and_else_on_the_file(recipe):
    path = recipe(SMALL)
    assert refusal(path, "seed=3", "train.step=7").startswith("override 'train.step=7': train.step: unknown key")
    assert refusal(path, "train={step: 7}").startswith("override 'train={step: 7}': train.step")
    assert refusal(path, "train.steps=5", "train.epochs=5").startswith("override 'train.epochs=5': train: give either")
    assert refusal(recipe(SMALL.replace("steps", "stepz")), "seed=3").startswith(path)


@pytest.mark.parametrize(
    ("former", "key", "value"),
    [
        ("data.kind=synthetic", ("data", "kind"), "synthetic_volumes"),
        ("train.learnt=head", ("train", "trainable"), "head"),
        (
            "data={kind: labelled_images, layout: EuroSAT, sensor: sentinel2_l1c, bands: [B2], crop: [0.5, 1]}",
            ("data", "augmentation.resized_crop"),
            (0.5, 1.0),
        ),
        (
            "data={kind: satellite_images, layout: a, sensor: b, bands: [c], resized_crop: [0.5, 1], "
            "augmentation: {mirrored: false}}",
            ("data", "augmentation.resized_crop"),
            (0.5, 1.0),
        ),
        ("data={kind: scene_pretraining, sensor: a, bands: [b], crop: [0.5, 1]}", ("data", "resized_crop"), (0.5, 1.0)),
        ("data={kind: scenes, sensor: a, bands: [b], crop: [0.5, 1]}", ("data", "kind"), "scene_pretraining"),
        ("data={kind: labelled_scenes, sensor: a, bands: [b]}", ("data", "kind"), "scene_mapping"),
        ("data={kind: galaxies, layout: folders, corrupted: 3, crop: 0.5}", ("data", "corruption_images"), 3),
    ],
)
def test_former_names_are_read_with_a_note(recipe, capsys, former, key, value):
    section, name = key
    assert operator.attrgetter(f"{section}.{name}")(load_recipe(recipe(SMALL), [former])) == value
    assert f"{section}.{name}" in capsys.readouterr().err.replace("is now called ", f"{section}.kind ")


def test_keys_that_meant_nothing_to_satellite_images_are_left_out_with_a_note(recipe, capsys):
    split = "{by: last, block: 3, test: 0.3}"
    given = f"{{kind: labelled_images, layout: a, sensor: b, bands: [c], stride: 8, split: {split}}}"
    data = load_recipe(recipe(SMALL), [f"data={given}"]).data
    assert isinstance(data, SatelliteImageData)
    assert data.split.model_dump() == {"test": 0.3, "validation": 0.1}
    said = capsys.readouterr().err
    assert all(f"data.{key} means nothing to satellite_images" in said for key in ("stride", "split.by", "split.block"))


def test_a_former_name_on_the_command_line_overrides_the_current_one_of_the_file():
    loaded = load_recipe("pneumoniamnist_medvitv2_cpu", ["data.corrupted=7"])
    assert loaded.data.model_dump()["corruption_images"] == 7


def test_the_domain_follows_from_the_kind_of_data_and_may_not_contradict_it(recipe):
    assert load_recipe(recipe(SMALL)).domain == "medvision"
    assert load_recipe(recipe(SMALL), ["domain=medvision"]).domain == "medvision"
    said = refusal(recipe(SMALL), "domain=geovision")
    assert "domain is geovision, but data.kind=synthetic_volumes is of medvision; leave domain out" in said


def test_an_unknown_recipe_offers_the_nearest_of_this_program(tmp_path):
    assert "did you mean brain_structures" in refusal("brain_structure")
    with pytest.raises(InputError, match="did you mean eurosat") as caught:
        load_recipe("euro_sat", domain="geovision")
    assert "brain" not in str(caught.value)
    with pytest.raises(InputError, match=r"expected one of: .*galaxy10_astroformer, ") as caught:
        load_recipe("nope", domain="astrovision")
    assert "brain" not in str(caught.value) and "eurosat" not in str(caught.value)
    assert "No such file" in refusal(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "is not text" in refusal(str(tmp_path / "binary.yaml"))


@pytest.mark.parametrize("alias", ["latest", "LATEST", "v2", "a.b", "two words", ""])
def test_an_alias_that_the_registry_would_refuse_shows_before_training(recipe, alias):
    assert "register_as.alias: " in refusal(recipe(SMALL), f"register_as.alias={alias!r}")
    assert load_recipe(recipe(SMALL), ["register_as.alias=champion_2"]).register_as.alias == "champion_2"


@pytest.mark.parametrize("name", ["../up", "a/b", "", "models:/x"])
def test_a_name_that_is_no_name_of_a_folder_is_refused(recipe, name):
    assert "name: " in refusal(recipe(SMALL), f"name={name!r}")


def test_what_is_noted_of_a_recipe_names_no_folder_and_no_subject(recipe, tmp_path):
    volumes = (
        "data={kind: volumes, layout: pairs, root: /jane, options: {test: [jane_doe], images: /jane, file: jane.h5, "
        "table: jane.csv, test_share: 0.1}}"
    )
    others = ["output=/jane/out", "card={name: jane}", "train.local_copy=/jane/tmp"]
    noted = shown(load_recipe(recipe(SMALL), [volumes, *others]))
    assert "jane" not in str(noted) and noted["data"]["options"] == {"test_share": 0.1}
    assert shown(load_recipe(recipe(SMALL), ["model.init=brain-structures-1"]))["model"]["init"] == "brain-structures-1"
