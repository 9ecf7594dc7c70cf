"""Values are what was typed: on the command line and in files, for text, numbers and everything else."""

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.recipe.loading import bundled_recipes, load_recipe
from pipelines.recipe.recipe import Recipe
from shared_backbones.errors import InputError

SMALL = """
name: small
data: {kind: volumes, layout: msd}
model: {architecture: hbformer}
train: {steps: 3}
"""
TEXTS = [
    "/my data #1", "~/x", "2024", "010", "1:30", "a: b", "- a", "[a, b]", "{a: b}", "no", "1e3", ".inf", "0x1F",
    "1_000", "2024-01-01", "!tag", "&a", "*a", "@x", "`x`", "%x", "a\\b", "é", "true", "~", " padded ", "it's", "'",
    '"', "'a' b", "$TMPDIR", "a=b",
]  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(SMALL)
    return str(path)


def refusal(*given: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", TEXTS)
def test_text_on_the_command_line_is_that_text(text: str, small: str):
    changes = [f"{key}={text}" for key in ("data.root", "output", "model.init", "tracking.experiment")]
    recipe = load_recipe(small, changes)
    assert [recipe.data.root, recipe.output, recipe.model.init, recipe.tracking.experiment] == [text] * 4


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_text_is_that_text(text: str, small: str):
    assume(text.lower() != "null" and not (text[0] == text[-1] and text[0] in "'\""))
    assert load_recipe(small, [f"data.root={text}"]).data.root == text


@pytest.mark.parametrize("text", ["1.10", "010", "2024", "1:30", "1.0", "true", "1e3"])
def test_texts_of_the_card_are_that_text(text: str, small: str):
    path = Path(small).with_name("card.yaml")
    path.write_text(f"{SMALL}card: {{version: {text}, classes: [{{id: 0, name: {text}, color: [1, 2, 3]}}]}}\n")
    recipe = load_recipe(str(path), [f"card.name={text}", f"card.license={text}"])
    assert [recipe.card[key] for key in ("version", "name", "license")] == [text] * 3
    assert recipe.card["classes"] == [{"id": 0, "name": text, "color": [1, 2, 3]}]


@pytest.mark.parametrize("given", ["card.version=null", "card={version: [1, 2]}"])
def test_what_is_no_text_in_the_card_is_refused(given: str, small: str):
    assert "version: found" in refusal(small, [given])


@given(text=st.text(string.ascii_letters + string.digits + "_.-/~:", min_size=1))
def test_text_in_a_file_and_in_lists_is_that_text(text: str, small: str):
    assume(text.lower() != "null" and not text.endswith(":") and text[0] not in "-:" and not text.startswith("..."))
    path = Path(small).with_name("text.yaml")
    path.write_text(
        f"name: small\noutput: {text}\ndata:\n  kind: scene_pretraining\n  sensor: {text}\n  bands:\n  - {text}\n"
        "model: {architecture: x}\ntrain: {steps: 3}\n"
    )
    recipe = load_recipe(str(path))
    assert (recipe.output, recipe.data.model_dump()["sensor"], recipe.data.model_dump()["bands"]) == (
        text,
        text,
        [text],
    )


def test_null_and_nothing_leave_a_text_out_and_quotes_are_yaml(small: str):
    for text in ("null", ""):
        assert load_recipe(small, ["data.root=x", f"data.root={text}"]).data.root is None
    assert load_recipe(small, ["data.root='null'"]).data.root == "null"
    assert load_recipe(small, ['data.root="a\\tb"']).data.root == "a\tb"


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("1e3", 1000.0), ("-.5", -0.5), ("1.", 1.0), ("1:30", "1:30"),
        ("no", "no"), ("off", "off"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("true", True), ("~", None),
        ("null", None), ("a: b", "a: b"), ("text #1", "text #1"), ("[010, no, 1e3]", [10, "no", 1000.0]),
        ("{a: 1:30, 2: '3'}", {"a": "1:30", 2: "3"}), ("'010'", "010"), ("+7", 7), ("1e", "1e"), (".", "."),
    ],
)  # fmt: skip
def test_a_free_value_follows_yaml_1_2(typed: str, value: Any, small: str, tmp_path: Path):
    found = load_recipe(small, [f"model.arguments.x={typed}"]).model.arguments["x"]
    assert found == value and type(found) is type(value)
    if "#" not in typed and typed != "a: b":  # which mean something else in a file
        path = tmp_path / "file.yaml"
        path.write_text(
            SMALL.replace("{architecture: hbformer}", f"\n  architecture: hbformer\n  arguments:\n    x: {typed}")
        )
        assert load_recipe(str(path)).model.arguments == {"x": value}


@given(value=st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans())
def test_a_number_comes_back_as_it_was(value: float, small: str):
    found = load_recipe(small, [f"model.arguments.x={json.dumps(value)}"]).model.arguments["x"]
    assert found == value and isinstance(found, bool) == isinstance(value, bool)


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "inf", "nan", "1e999", "-1e999"])
@pytest.mark.parametrize("key", ["train.learning_rate", "data.augmentation.noise", "data.spacing_mm"])
def test_a_number_that_is_not_finite_is_refused(key: str, number: str, small: str):
    line = refusal(small, [f"{key}={number}"])
    assert (
        line.startswith(f"override '{key}={number}': {key}") and number.lstrip("-.") in line and "finite number" in line
    )


@pytest.mark.parametrize("number", [".inf", ".nan", "-1e999"])
def test_a_free_number_that_is_not_finite_is_refused(number: str, small: str, tmp_path: Path):
    assert f"model.arguments.x: found {number}, expected a finite number" in refusal(
        small, [f"model.arguments.x={number}"]
    )
    assert f"found {number}" in refusal(small, [f"model.arguments.x=[1, {number}]"])
    path = tmp_path / "file.yaml"
    path.write_text(f"{SMALL}card: {{a: {{b: [{number}]}}}}\n")
    assert refusal(str(path)) == f"{path}: card.a.b.0: found {number}, expected a finite number"


@pytest.mark.parametrize("key", ["data.slices", "data.views"])
def test_an_empty_list_is_refused_where_there_has_to_be_something(key: str, small: str):
    line = refusal(small, [f"{key}=[]"])
    assert line.startswith(f"override '{key}=[]': {key}: ") and "at least 1" in line and line.endswith("found []")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "name: other\n", "name: is there twice, found small and other; keep one of them"),
        (SMALL.replace("{steps: 3}", "{steps: 3, steps: 4}"), "train.steps: is there twice, found 3 and 4"),
        (SMALL + "card:\n  a: {b: 1}\n  c: 2\n  a: 3\n", "card.a: is there twice, found another section and 3"),
        (SMALL + "card: &x\n  a: *x\n", "card.a: contains itself"),
        (SMALL + "card: {<<: {a: 1}}\n", "card.<<: merging is no part of YAML 1.2"),
        (SMALL + "card: {a: !python/object/apply:os.system [ls]}\n", "card.a: found the tag !python/object/apply"),
        (SMALL + "card: {a: !mine 1}\n", "card.a: found the tag !mine, expected plain YAML"),
        (SMALL + "card: {[a]: 1}\n", "card: found a list or a mapping as a key"),
        (SMALL + "---\nname: two\n", "is not YAML"),
        ("name: [a]\ndata: {}\n", "name"),
    ],
)
def test_what_yaml_would_pass_over_is_refused(text: str, message: str, tmp_path: Path):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    line = refusal(str(path))
    assert line.startswith(str(path)) and message in line


def test_a_key_that_an_override_gives_twice_is_refused(small: str):
    line = refusal(small, ["data.augmentation={noise: 0, noise: 1}"])
    assert "data.augmentation.noise: is there twice, found 0 and 1" in line


def test_bundled_recipes_mean_what_they_meant():
    """No value is read otherwise by YAML 1.1 than by 1.2, but for numbers such as 1e-3, which were text."""
    import yaml

    def same(new: Any, old: Any) -> bool:
        if isinstance(new, dict):
            return new.keys() == old.keys() and all(same(new[key], old[key]) for key in new)
        if isinstance(new, list):
            return len(new) == len(old) and all(map(same, new, old))
        return new == old or str(new) == str(old) or float(new) == float(old)

    from pipelines.recipe.values import read_yaml

    for path in bundled_recipes().values():
        text = path.read_text(encoding="utf-8")
        assert same(read_yaml(text, Recipe), yaml.safe_load(text)), path
