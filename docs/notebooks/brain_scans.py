# %% [markdown]
# # Brain scans: segment, look, compare
#
# The average T1-weighted brain of 152 people (ICBM 2009a) is part of the package `nilearn`. So are probability maps of
# its grey and white matter, which other people made with other software. They are the known answer here.

# %%
import matplotlib.pyplot as plt
import nibabel
import numpy as np

import medvision
from apps.demo import average_brain

scan = average_brain()
segmenter = medvision.Segmenter("brain-structures")  # loaded once, for any number of scans
result = segmenter.segment(scan)

# %% [markdown]
# ## Volumes
#
# `volumes()` has a row for the scan, as the program's CSV files have.

# %%
(row,) = result.volumes()
volumes = {name: float(value) for name, value in row.items() if name.endswith("_ml") and value not in ("", None)}
for name, value in volumes.items():
    print(f"{name:32} {value:8.1f}")

# %% [markdown]
# ## A look
#
# Labels lie on the scan's own grid, so that they can be drawn over it as they are.

# %%
image = np.asarray(nibabel.load(scan).dataobj)
middle = image.shape[2] // 2
figure, axes = plt.subplots(1, 2, figsize=(8, 4.5), layout="constrained")
for axis in axes:
    axis.imshow(image[:, :, middle].T, cmap="gray", origin="lower")
    axis.axis("off")
shown = np.ma.masked_equal(result.labels[:, :, middle], 0)
axes[1].imshow(shown.T, cmap="tab10", origin="lower", alpha=0.6, vmin=0, vmax=9, interpolation="nearest")
plt.show()

# %% [markdown]
# ## Against the known answer
#
# Dice is twice the overlap over the sum of both sizes: 1 where two masks are the same. The probability maps count what
# is more likely white than not as white matter, and have no structures; so both kinds of white matter are joined.

# %%
folder = scan.parent
maps = {tissue: nibabel.load(folder / scan.name.replace("_t1_", f"_{tissue}_")) for tissue in ("wm", "gm")}
ours = {"wm": np.isin(result.labels, (1, 8)), "gm": np.isin(result.labels, (2, 3, 4, 9))}
dice = {}
for tissue, known in maps.items():
    probability = np.asarray(known.dataobj)
    theirs = probability > probability.max() / 2
    dice[tissue] = 2 * (theirs & ours[tissue]).sum() / (theirs.sum() + ours[tissue].sum())
    print(f"{tissue}: Dice {dice[tissue]:.2f}")
assert dice["wm"] > 0.8 and dice["gm"] > 0.7, dice
