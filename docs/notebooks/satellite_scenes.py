# %% [markdown]
# # Satellite scenes: map, look, compare
#
# The scene is drawn from a library of spectra, as Sentinel-2 would see it. So the known answer is known for each pixel.

# %%
import json
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import rasterio

from apps.demo import SEED, SIDE, draw_scene
from geovision.spectra.drawing import SceneDrawer

draw_scene(Path("scene.tif"))
truth = SceneDrawer("test").landscape("sentinel2_l2a", SIDE, np.random.default_rng(SEED)).labels[0]

# %% [markdown]
# ## Map it
#
# What the program prints can be had as JSON, too.

# %%
done = subprocess.run(
    ["geovision", "map", "--input", "scene.tif", "--output", "map.tif", "--overwrite", "--json"],
    check=True, capture_output=True, text=True,
)  # fmt: skip
classes = {entry["id"]: entry["name"] for entry in json.loads(Path("map.json").read_text())["classes"]}
for number, name in classes.items():
    print(number, name)

# %% [markdown]
# ## A look
#
# The scene in red, green and blue, the map, and where the two are not alike.

# %%
with rasterio.open("scene.tif") as scene, rasterio.open("map.tif") as mapped:
    names = list(scene.descriptions)
    colours = np.stack([scene.read(names.index(band) + 1) for band in ("B4", "B3", "B2")], -1) / 10_000
    labels = mapped.read(1)
    palette = np.array([mapped.colormap(1).get(number, (0, 0, 0, 255))[:3] for number in range(256)], np.uint8)
compared = (truth != 255) & (labels != 255)
wrong = compared & (truth != labels)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
pictures = {"scene": np.clip(colours * 3, 0, 1), "map": palette[labels], "wrong": wrong}
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture, cmap="gray")
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Against the known answer
#
# Pixels in which no class dominates have none, and do not count. Water, green plants and towns are where they were
# drawn. Dry plants and bare soil are mostly taken for something else, and so are thin clouds and shadows: a look
# at the report comes before a sum of hectares.

# %%
right = {}
for number in np.unique(truth[compared]):
    there = compared & (truth == number)
    right[classes[int(number)]] = np.mean(labels[there] == number)
    print(f"{classes[int(number)]:18} {right[classes[int(number)]]:7.1%} of {there.sum():9,}")
print(f"{'all':18} {1 - wrong.sum() / compared.sum():7.1%} of {compared.sum():9,}")
assert min(right[name] for name in ("green_vegetation", "water", "built_up")) > 0.85
