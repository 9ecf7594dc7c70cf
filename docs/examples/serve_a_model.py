"""Ask a registered model for the classes of an image: python serve_a_model.py NAME IMAGE"""

import sys

import mlflow
import numpy as np
from PIL import Image


def main(name: str, image: str) -> np.ndarray:
    model = mlflow.pyfunc.load_model(f"models:/{name}@newest")
    pixels = np.asarray(Image.open(image), np.float32)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    answer = model.predict(planes[None])
    print(answer)
    return answer


if __name__ == "__main__":
    main(*sys.argv[1:3])
