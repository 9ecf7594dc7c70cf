"""Bundles that are refused: what a card cannot say, and what is hostile. Nothing of them is executed."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medvision.bundles.importing import import_bundle
from shared_backbones.errors import InputError
from tests.medvision.bundles.bundles import make_config, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


def refused(bundle: Path, tmp_path: Path, text: str | None = None, place: str = "configs/inference.json") -> str:
    """The one line with which a bundle is refused, `text` in place of a file of it; nothing is written."""
    folder = tmp_path / "altered"
    for name in ("configs/metadata.json", "configs/inference.json", "models/model.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((bundle / name).read_bytes())
    if text is not None:
        (folder / place).write_text(text)
    begun = time.process_time()
    with pytest.raises(InputError) as caught:
        import_bundle(folder, tmp_path / "model")
    assert time.process_time() - begun < 10
    assert not (tmp_path / "model").exists()
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and len(line) < 700
    return line


def changed(path: str, value: Any) -> dict[str, Any]:
    """The configuration with another value at a place, steps of which are joined by `::`."""
    config = make_config()
    *parents, last = path.split("::")
    home: Any = config
    for step in parents:
        home = home[int(step) if isinstance(home, list) else step]
    if isinstance(home, list):
        home[int(last) :] = [value, *home[int(last) + 1 :]]
    else:
        home[last] = value
    return config


STEP = {"keys": "image"}
BEFORE, AFTER = "preprocessing::transforms", "postprocessing::transforms"


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        (f"{BEFORE}::2::axcodes", "LPS", ["Orientationd", "'LPS'", "'RAS'"]),
        (f"{BEFORE}::2", {"_target_": "CropForegroundd", **STEP, "source_key": "image"}, ["CropForegroundd"]),
        (f"{BEFORE}::2", {"_target_": "EnsureTyped", **STEP}, ["Orientationd"]),
        (f"{BEFORE}::3::mode", "nearest", ["Spacingd", "mode", "'nearest'"]),
        (f"{BEFORE}::3::padding_mode", "zeros", ["Spacingd", "padding_mode"]),
        (f"{BEFORE}::3::scale_extent", True, ["scale_extent"]),
        (f"{BEFORE}::3::pixdim", [0.01, 1, 1], ["pixdim", "0.1 to 20"]),
        (f"{BEFORE}::3::pixdim", "$[x for x in (1, 1, 1)]", ["pixdim", "$[x for x in (1, 1, 1)]"]),
        (f"{BEFORE}::3::sharp", True, ["Spacingd", "'sharp'"]),
        (f"{BEFORE}::4", {"_target_": "ScaleIntensityRangePercentilesd", **STEP}, ["ScaleIntensityRangePercentilesd"]),
        (f"{BEFORE}::4", {"_target_": "scripts.mine.ScaleIntensityd", **STEP}, ["scripts.mine.ScaleIntensityd"]),
        (f"{BEFORE}::4::subtrahend", 3, ["nonzero"]),
        (f"{BEFORE}::5", {"_target_": "ScaleIntensityd", **STEP}, ["ScaleIntensityd comes too late or twice"]),
        (f"{BEFORE}::5::dtype", "float16", ["EnsureTyped", "'float16'"]),
        (f"{BEFORE}::5::keys", "label", ["one image"]),
        (f"{BEFORE}::0::reader", "NumpyReader", ["NumpyReader"]),
        ("preprocessing::lazy", True, ["lazy"]),
        ("preprocessing", {"_target_": "Compose", "transforms": []}, ["no transforms"]),
        ("inferer::padding_mode", "reflect", ["padding_mode", "'reflect'"]),
        ("inferer::cval", -1, ["cval", "-1"]),
        ("inferer::roi_size", [16, 16, -1], ["roi_size"]),
        ("inferer::sigma_scale", 0.2, ["sigma_scale", "0.2"]),
        ("inferer::overlap", [0.5, 0.25, 0.5], ["overlap"]),
        ("inferer", {"_target_": "SimpleInferer"}, ["SimpleInferer"]),
        (f"{AFTER}::0", {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}, ["sigmoid"]),
        (f"{AFTER}::0", {"_target_": "EnsureTyped", "keys": "pred"}, ["without Activationsd"]),
        (f"{AFTER}::1::nearest_interp", True, ["Invertd", "nearest_interp"]),
        (f"{AFTER}::1::transform", "@inferer", ["transform", "is not the evaluator's preprocessing"]),
        (f"{AFTER}::1", {"_target_": "EnsureTyped", "keys": "pred"}, ["without Invertd"]),
        (f"{AFTER}::2", {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}, ["AsDiscreted", "argmax"]),
        (f"{AFTER}::4", {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}, ["KeepLargestConnected"]),
        (f"{AFTER}::4", {"_target_": "FillHolesd", "keys": "pred"}, ["FillHolesd"]),
        (f"{AFTER}::3::scale", 2, ["SaveImaged", "scale"]),
        ("network_def::_target_", "ResNet", ["ResNet", "SegResNet"]),
        ("network_def::in_channels", 4, ["in_channels", "4"]),
        ("network_def::spatial_dims", 2, ["spatial_dims"]),
        ("network_def::out_channels", 1, ["out_channels"]),
        ("network_def::blocks", 3, ["'blocks'"]),
        ("network_def::act", {"_target_": "torch.nn.ReLU"}, ["network_def::act", "component"]),
        ("network_def::channels", [4, 8, 16], ["model.pt", "numbers"]),
        ("network_def::channels", [4], ["channels"]),
        ("network_def::channels", [2**14, 2**14, 2**14], ["model.pt", "numbers"]),
        ("network_def::channels", [2**20, 2**20, 2**20], ["channels", "at most 16384"]),
        ("network", "$torch.jit.load('x')", ["$torch.jit.load"]),
        ("network", "@nowhere::to", ["@nowhere::to", "leads nowhere"]),
        ("network", "@network", ["does not end"]),
        ("activation", ["@activation", "@activation"], ["nested more than 24 deep"]),
        ("handlers::0::load_path", "$@bundle_root + '/models/other.pt'", ["other.pt", "model.pt"]),
        ("handlers::1::_target_", "LambdaHandler", ["LambdaHandler"]),
        ("evaluator::iteration_update", "$print", ["iteration_update"]),
        ("evaluator::_target_", "EnsembleEvaluator", ["EnsembleEvaluator"]),
        ("initialize", ["$@network_def.half()"], ["initialize", "half"]),
        ("run", "$scripts.go()", ["run", "$scripts.go()"]),
        (f"{BEFORE}::4::_requires_", "$torch.zeros(1)", ["_requires_"]),
        (f"{BEFORE}::4::_disabled_", "$1 + 1", ["_disabled_", "$1 + 1"]),
        ("+inferer", {"overlap": 0.1}, ["+inferer", "no plain name"]),
        ("inferer#overlap", 0.1, ["inferer#overlap"]),
        ("image_key", "%configs/other.json::key", ["%configs/other.json"]),
    ],
)
def test_what_a_card_cannot_say_is_refused_by_its_name(
    path: str, value: Any, parts: list[str], bundle: Path, tmp_path: Path
):
    line = refused(bundle, tmp_path, json.dumps(changed(path, value)))
    for part in parts:
        assert part in line, line


def touching(marker: Path) -> list[Any]:
    """Values that write a file when they are instantiated or evaluated."""
    call = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": str(marker)}}
    return [
        {"_target_": "os.system", "command": f"touch {marker}"},
        {"_target_": "builtins.exec", "_args_": [f"open({str(marker)!r}, 'w')"]},
        {**call, "_mode_": "callable"},
        f"$open({str(marker)!r}, 'w')",
        f"$__import__('os').system('touch {marker}')",
        f"$@image_key + str(open({str(marker)!r}, 'w'))",
    ]


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize(
    "path",
    [
        "evaluator", "network", "network_def", "network_def::act", "inferer", "inferer::roi_size", "dataloader",
        "dataset::transform", f"{BEFORE}::3", f"{BEFORE}::3::pixdim", f"{BEFORE}::6", f"{AFTER}::1", f"{AFTER}::4",
        "handlers::0", "handlers::0::load_path", "initialize", "run",
    ],
)  # fmt: skip
def test_nothing_is_executed(path: str, which: int, bundle: Path, tmp_path: Path):
    marker = tmp_path / "executed"
    value = touching(marker)[which]
    line = refused(bundle, tmp_path, json.dumps(changed(path, [value] if path in ("initialize", "run") else value)))
    assert not marker.exists() and "altered" in line


def test_what_decides_no_label_is_not_executed_either(bundle: Path, tmp_path: Path):
    folder = tmp_path / "altered"
    marker = tmp_path / "executed"
    config = make_config()
    for name, value in zip(
        ("imports", "datalist", "device", "output_dir", "dataset_dir", "other"), touching(marker), strict=True
    ):
        config[name] = value
    config["handlers"][1]["tag_name"] = f"$open({str(marker)!r}, 'w')"
    for name in ("metadata.json", "inference.json"):
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / name).write_bytes((bundle / "configs" / name).read_bytes())
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "models").symlink_to(bundle / "models")
    with pytest.raises(InputError, match="leaves the bundle"):
        import_bundle(folder, tmp_path / "model")
    (folder / "models").unlink()
    os.link(bundle / "models" / "model.pt", _made(folder / "models") / "model.pt")
    import_bundle(folder, tmp_path / "model")
    assert not marker.exists()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def bomb(levels: int = 40) -> dict[str, Any]:
    """References that double what they lead to, level by level."""
    config = make_config()
    config |= {f"level{n}": [f"@level{n + 1}"] * 2 for n in range(levels)} | {f"level{levels}": 1}
    config["network_def"]["kernel_size"] = "@level0"
    return config


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 50_000, "nested too deep"),
        ('{"evaluator": ' + "[" * 300 + "]" * 300 + "}", "expected a component"),
        (json.dumps(changed("activation", json.loads("[" * 100 + "]" * 100))), "deep"),
        (json.dumps(changed("inferer::roi_size", "@" + "::".join("9" * 5000))), "leads nowhere"),
        (json.dumps(bomb()), "values"),
        (json.dumps(make_config()) + " " * 300_000, "bytes"),
        ("{]", "cannot be read"),
        ("[1, 2]", "holds a list"),
        ('{"evaluator": 1e999}', "evaluator"),
        ("{}", "@evaluator"),
        ("\x00\x01", "cannot be read"),
        ('{"evaluator": "\\u001b[2J\\n@x"}', "evaluator"),
    ],
)
def test_configurations_that_are_made_to_hurt(text: str, part: str, bundle: Path, tmp_path: Path):
    assert part in refused(bundle, tmp_path, text)


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]\n", "evaluator: !!python/object/apply:os.system [touch executed]\n", "? [a]\n: b\n", "[" * 50_000],
)
def test_yaml_that_is_made_to_hurt(text: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source" / "configs").mkdir(parents=True)
    (tmp_path / "source" / "configs" / "metadata.json").write_text("{}")
    (tmp_path / "source" / "configs" / "inference.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        import_bundle(tmp_path / "source", tmp_path / "model")
    assert "inference.yaml" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_a_pickled_program_as_weights(bundle: Path, tmp_path: Path):
    class Planted:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"model": Planted()}, tmp_path / "planted.pt")
    folder = write_bundle(tmp_path / "source")
    os.replace(tmp_path / "planted.pt", folder / "models" / "model.pt")
    assert "other objects than tensors" in refused(folder, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_links_pipes_and_missing_files(bundle: Path, tmp_path: Path):
    folder = write_bundle(tmp_path / "bundle")
    path = folder / "configs" / "inference.json"
    (tmp_path / "secret.json").write_text(path.read_text())
    path.unlink()
    with pytest.raises(InputError, match=r"inference.json: cannot be read .No such file"):
        import_bundle(folder, tmp_path / "model")
    path.symlink_to(tmp_path / "secret.json")
    with pytest.raises(InputError, match="leaves the bundle"):
        import_bundle(folder, tmp_path / "model")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="no regular file"):
        import_bundle(folder, tmp_path / "model")
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(InputError, match="cannot be read"):
        import_bundle(folder, tmp_path / "model")
