import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def drawn(count: int, classes: int, seed: int, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn by the probabilities that they say."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, sharpness, (count, classes))
    labels = (softmax(logits).cumsum(1) < random.random((count, 1))).sum(1)
    return logits, np.minimum(labels, classes - 1)
