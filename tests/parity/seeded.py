"""Fixtures of official outputs, and the weights they were made with: recipe `seeded-by-name v1`.

Weights are not stored: every entry of an official state dict is drawn from a generator seeded with its name.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Fixture:
    """One official run: `meta` says how it was made, `shapes` lists the official entries, `arrays` the results."""

    meta: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    arrays: dict[str, np.ndarray]

    def input(self) -> np.ndarray:
        return standard_normal(self.meta["input_seed"], self.meta["input_shape"])

    def extra_input(self, name: str) -> np.ndarray:
        """An up-scaled target, or the mask's noise, of an autoencoder."""
        how = self.meta["extra_inputs"][name]
        random = np.random.RandomState(how["seed"])
        value = random.rand(*how["shape"]) if name == "mask_noise" else random.standard_normal(how["shape"])
        return value.astype(np.float32)

    def state(self, constructed: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """The official state dict. Kept entries come from `constructed`; without it counters are 0, others absent."""
        kept = set(self.meta.get("kept", ()))
        factors = {**self.meta.get("overrides", {}), **self.meta.get("std_overrides", {})}
        state = {}
        first_names = self.meta.get("aliases", {})
        for name, shape in self.shapes.items():
            if name in first_names:
                state[name] = state[first_names[name]]
            elif name not in kept:
                state[name] = np.asarray(seeded(name, shape, factors.get(name, 0.02)), np.float32)
            elif constructed is not None:
                state[name] = constructed[name]
            elif name.endswith("num_batches_tracked"):
                state[name] = np.zeros(shape, np.int64)
        return state

    def amplified(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The state that lets the output depend on the deep path; of fixtures with `amp_scale_overrides`."""
        state = dict(state)
        for ending, factor in self.meta["amp_scale_overrides"].items():
            names = [name for name in state if name.endswith(ending)]
            assert len(names) == self.meta["amp_hits"][ending]
            state.update({name: state[name] * np.float32(factor) for name in names})
        return state

    def assert_output(self, output: ArrayLike, *, amplified: bool = False) -> None:
        """Compare with the official output, as it is stated: whole or sampled, in the precision of `output`."""
        ending = "_amp" if amplified else ""
        assert list(np.shape(output)) == self.meta.get(f"output_shape{ending}", self.meta["output_shape"])
        found = np.asarray(output)
        keys = {f"output{ending}_f64", f"output_sample{ending}_f64"}
        double = "_f64" if found.dtype == np.float64 and not keys.isdisjoint(self.arrays) else ""
        whole = self.arrays.get(f"output{ending}{double}")
        sampled = f"output_sample{ending}{double}"
        expected = self.arrays[sampled] if whole is None else whole.ravel()
        found = found.ravel() if whole is not None else found.ravel()[:: self.meta[f"output_sample_k{ending}"]]
        scale = float(np.abs(expected).max())
        if double:
            atol = 1e-9 * scale
        else:
            assert "float32" in self.meta.get("recommended_check", "float32"), "compare this one in float64"
            atol = self.meta.get(f"suggested_atol{ending}", 1e-4 * scale)
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)

    def assert_stage(self, stage: str, value: ArrayLike, *, amplified: bool = False) -> None:
        """Compare mean, population deviation and the first 64 values with the official ones, to 1e-5 of the largest."""
        value = np.asarray(value, np.float64)
        if "stage_shapes" in self.meta:
            assert list(value.shape) == self.meta["stage_shapes"][stage], stage
        expected = self.arrays[f"{'amp_' if amplified else ''}stage_{stage}"]
        whole = expected.ndim > 1  # a detail, given as it is
        found = value if whole else np.concatenate([[value.mean(), value.std()], value.ravel()[:64]])
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=stage)


@cache
def read_fixture(name: str) -> Fixture:
    with np.load(Path(__file__).with_name(f"{name}.npz")) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    shapes = [tuple(shape) for shape in json.loads(str(arrays.pop("shapes")))]
    names = [str(name) for name in arrays.pop("names")]
    return Fixture(meta, dict(zip(names, shapes, strict=True)), arrays)


def seeded(name: str, shape: tuple[int, ...], factor: float = 0.02) -> ArrayLike:
    """The value of one entry; `factor` scales entries that no other rule covers."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape)
    if name.endswith("running_mean"):
        return 0.1 * random.standard_normal(shape)
    if name.endswith(".weight") and len(shape) > 1:
        return random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    if name.endswith(".weight") and len(shape) == 1:
        return 1 + 0.1 * random.standard_normal(shape)
    if name.endswith(".bias"):
        return 0.1 * random.standard_normal(shape)
    if not shape:
        return 0.5 + 0.1 * random.standard_normal()
    return factor * random.standard_normal(shape)


def standard_normal(seed: int, shape: list[int]) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
