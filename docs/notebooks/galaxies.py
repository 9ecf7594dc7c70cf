# %% [markdown]
# # Galaxies: classify, look, compare
#
# A field of sixteen galaxies is drawn as SDSS would see it, in fluxes with a WCS, and its catalogue says what was
# drawn. The bundled model learned from real galaxies, so that it calls these outliers; it should know their shapes
# all the same.

# %%
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from astropy.io import fits
from astropy.table import Table

from apps.demo import draw_sky
from astrovision.stretches import Stretch

draw_sky(Path("sky.fits"), Path("catalogue.csv"))
subprocess.run(
    ["astrovision", "classify", "--input", "sky.fits", "--catalogue", "catalogue.csv", "--output", "classes.ecsv",
     "--keep-columns", "drawn", "--overwrite", "--quiet"],
    check=True,
)  # fmt: skip
table = Table.read("classes.ecsv")
print(table["id", "drawn", "class", "confidence"])

# %% [markdown]
# ## A look
#
# Fluxes become a picture by the stretch that SDSS uses. East is left.

# %%
sky = fits.getdata("sky.fits")
picture = np.moveaxis(Stretch("sdss", {}).apply(np.asarray(sky)), 0, -1)
figure, axis = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
axis.imshow(np.clip(picture / max(picture.max(), 1), 0, 1), origin="lower")
axis.axis("off")
plt.show()

# %% [markdown]
# ## Against the known answer

# %%
right = np.asarray(table["drawn"]) == np.asarray(table["class"])
for row in table[~right]:
    print(f"{row['id']}: drawn as {row['drawn']}, called {row['class']} with {row['confidence']:.2f}")
print(f"right: {right.sum()} of {len(table)}")
assert right.mean() >= 0.7, "drawn galaxies are easier than real ones"
