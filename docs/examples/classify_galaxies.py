"""Classify images of galaxies and plot how sure the model is: python classify_galaxies.py MODEL IMAGES"""

import subprocess
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from astropy.table import Table


def main(model: str, images: str) -> Table:
    subprocess.run(
        ["astrovision", "classify", "--input", images, "--model", model, "--output", "classes.ecsv"], check=True
    )
    table = Table.read("classes.ecsv")
    figure, axes = plt.subplots()
    for name in sorted(set(table["class"])):
        axes.hist(table["confidence"][table["class"] == name], bins=20, range=(0, 1), histtype="step", label=name)
    axes.set(xlabel="confidence", ylabel="images")
    axes.legend()
    figure.savefig("confidence.png")
    print(table["id", "class", "confidence"])
    return table


if __name__ == "__main__":
    main(*sys.argv[1:3])
