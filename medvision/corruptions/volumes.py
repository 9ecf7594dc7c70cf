"""What goes wrong with MR and CT volumes, in five steps: coil, motion, k-space, noise, resolution and intensity scale.

The protocol is that of Hendrycks and Dietterich (2019): every corruption has five severities, and a model is scored on
each. Volumes have no published scales; these are physical ones, in mm, degrees, HU and fractions of the signal, so that
they mean the same at any spacing. Every cell of such a table can be computed alone (`corrupt_volume`).

The operators of MONAI and TorchIO that go by these names take voxels, or fractions of the volume, and torch's
generators: a severity would mean another thing at every spacing, and a figure another thing with every release. So they
are written here, a few lines of scipy and numpy each.

Nothing moves: what is acquired at the middle of k-space is where it was, so labels of the volume remain those of the
corrupted one.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import fft, ndimage

from shared_backbones.errors import InputError

Corruption = Callable[[np.ndarray, float, np.ndarray, np.random.Generator], np.ndarray]

SCALES: Mapping[str, Mapping[str, tuple[float, float, float, float, float]]] = {
    "mr": {
        "bias_field": (1.3, 1.6, 2.1, 2.8, 4.0),
        "motion": (0.4, 0.8, 1.4, 2.4, 4.0),
        "ghosting": (0.1, 0.2, 0.35, 0.5, 0.7),
        "spike": (0.03, 0.06, 0.1, 0.16, 0.25),
        "noise": (0.02, 0.04, 0.07, 0.11, 0.16),
        "blur": (1.5, 2.5, 3.5, 5.0, 7.0),
        "anisotropy": (2.0, 3.0, 4.0, 6.0, 8.0),
        "contrast": (1.15, 1.3, 1.5, 1.8, 2.2),
    },
    "ct": {
        "noise": (10.0, 20.0, 40.0, 70.0, 110.0),
        "blur": (1.5, 2.5, 3.5, 5.0, 7.0),
        "anisotropy": (2.0, 3.0, 4.0, 6.0, 8.0),
        "contrast": (0.02, 0.04, 0.07, 0.11, 0.16),
    },
}
"""What the severities 1 to 5 mean, by modality. CT has no coil and no k-space, so it has fewer.

- `bias_field`: largest over smallest gain of the coils.
- `motion`: mm that the head shifts and degrees that it turns, once before and once after the middle of k-space.
- `ghosting`: share of the signal that every n-th line of k-space lacks.
- `spike`: height of the stripes, in units of the signal.
- `noise`: standard deviation; of both channels in units of the signal (Rician) in MR, in HU (Gaussian) in CT.
- `blur`: full width at half maximum of a Gaussian, in mm.
- `anisotropy`: thickness of slices in mm.
- `contrast`: in MR the exponent, or 1 / exponent, that the signal is raised to; in CT the relative error of the scale,
  up or down, such that air stays at -1000 HU.

The signal of MR is the 99th percentile of what is above the background. Where voxels are as coarse as a severity's blur
or slices, those change next to nothing.
"""


def corrupt_volume(
    name: str,
    volume: np.ndarray,
    severity: int,
    *,
    spacing_mm: Sequence[float],
    modality: str,
    seed_key: Sequence[str | int],
) -> np.ndarray:
    """A volume with one corruption, the same whenever and wherever it is made.

    The generator is seeded by the sha256 of modality, name, severity and `seed_key`. Voxels that hold the volume's
    lowest value are background and stay: a stripped or padded scan remains one. So does a volume of a single value.

    Args:
        name: one of `SCALES[modality]`.
        volume: `(X, Y, Z)`, finite, CT in HU; it is left as it is.
        severity: 1 to 5, of `SCALES`.
        spacing_mm: voxel size along each axis.
        modality: `mr` or `ct`.
        seed_key: what tells this volume from others, such as the run's seed and the case's id.

    Returns:
        `(X, Y, Z)` float32 on the same grid, finite.

    Raises:
        InputError: no such modality, corruption or severity, or not such a volume or spacing.
    """
    _check_request(name, severity, modality)
    spacing, values = _checked_spacing(spacing_mm), _checked_values(volume)
    low = values.min(initial=np.inf)
    background = values == low
    if background.all():
        return values
    zero, unit = _HU
    if modality == "mr":
        zero, unit = float(low), max(float(np.percentile(values[~background], 99)) - float(low), _SMALLEST)
    parts = [modality, name, int(severity), *(part if isinstance(part, str) else int(part) for part in seed_key)]
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()))
    signal = (values - np.float32(zero)) / np.float32(unit)
    signal = CORRUPTIONS[modality][name](signal, SCALES[modality][name][int(severity) - 1], spacing, random)
    return np.where(background, low, signal.astype(np.float32, copy=False) * np.float32(unit) + np.float32(zero))


def _check_request(name: str, severity: int, modality: str) -> None:
    if modality not in SCALES:
        raise InputError(f"modality is {modality!r}, expected one of: {', '.join(SCALES)}")
    if name not in SCALES[modality]:
        known = ", ".join(SCALES[modality])
        raise InputError(f"corruption {name!r} is unknown for {modality}; expected one of: {known}")
    if severity not in range(1, 6):
        raise InputError(f"severity of {name} is {severity}, expected 1 to 5")


def _checked_spacing(spacing_mm: Sequence[float]) -> np.ndarray:
    spacing = np.array(spacing_mm, float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputError(f"spacing_mm is {spacing_mm}, expected three positive lengths")
    return spacing


def _checked_values(volume: np.ndarray) -> np.ndarray:
    """A copy of a volume as float32."""
    values = np.array(volume, np.float32)
    if values.ndim != 3 or not np.isfinite(values).all():
        what = "NaN or infinity" if values.ndim == 3 else f"shape {values.shape}"
        raise InputError(f"volume has {what}, expected finite values of shape (X, Y, Z)")
    return values


def bias_field(signal: np.ndarray, ratio: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Uneven coils: a gain whose logarithm is a sum of waves 150 to 400 mm long."""
    field = np.zeros(signal.shape, np.float32)
    for height in random.normal(size=6):
        field += np.float32(height) * np.real(_wave(signal.shape, spacing, random.uniform(150, 400), random))
    span = np.ptp(field)
    return signal * np.exp((field - field.mean()) * np.float32(math.log(ratio) / max(float(span), 1e-6)))


def motion(signal: np.ndarray, reach: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A head that moved: early and late lines of k-space, along a drawn axis, are those of another pose."""
    axis = int(random.integers(3))
    length = signal.shape[axis]
    lines = _fft(signal, axis)
    order = np.argsort(np.fft.fftfreq(length), kind="stable")  # of acquisition: from one end of k-space to the other
    first, last = round(length * random.uniform(0.3, 0.45)), round(length * random.uniform(0.55, 0.7))
    for taken in (order[:first], order[last:]):
        where = (*[slice(None)] * axis, taken)
        lines[where] = _fft(_moved(signal, reach, spacing, random), axis)[where]
    return _magnitude(lines, axis)


def ghosting(signal: np.ndarray, fraction: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Pulsation: every n-th line of k-space, n from 3 to 5, is weaker: faint copies lie along a drawn axis.

    The middle 2 % of the lines, which carry the brightness, stay as they are.
    """
    axis, ghosts = int(random.integers(3)), int(random.integers(3, 6))
    length = signal.shape[axis]
    gain = np.ones(length, np.float32)
    gain[::ghosts] -= np.float32(fraction)
    gain[np.abs(np.fft.fftfreq(length)) <= 0.01] = 1
    lines = _fft(signal, axis) * np.expand_dims(gain, [other for other in range(3) if other != axis])
    return _magnitude(lines, axis)


def spike(signal: np.ndarray, height: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A spark in the scanner: one point of k-space is far too strong, a wave 4 to 12 mm long across the image."""
    shortest = 2 * float(spacing.max())  # what this grid can show in every direction
    length = random.uniform(max(4.0, shortest), max(12.0, 3 * shortest))
    return np.abs(signal + np.float32(height) * _wave(signal.shape, spacing, length, random))


def rician_noise(signal: np.ndarray, sigma: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Noise of both channels of the receiver, of which the magnitude is seen (Gudbjartsson and Patz 1995)."""
    real = signal + np.float32(sigma) * random.standard_normal(signal.shape, np.float32)
    return np.hypot(real, np.float32(sigma) * random.standard_normal(signal.shape, np.float32))


def gaussian_noise(signal: np.ndarray, sigma: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Noise of a lower dose: Gaussian, in HU."""
    return signal + np.float32(sigma / _HU[1]) * random.standard_normal(signal.shape, np.float32)


def blur(signal: np.ndarray, width: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A smooth kernel of reconstruction, or filtering: a Gaussian of that width along all axes."""
    return ndimage.gaussian_filter(signal, width / math.sqrt(8 * math.log(2)) / spacing, mode="nearest")


def anisotropy(signal: np.ndarray, thickness: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Thick slices across an axis, drawn from those of thinner voxels, and interpolated to the old grid again.

    Where all voxels are as thick, nothing changes.
    """
    from medvision.volumes.resampling import linear_weights

    thinner = np.flatnonzero(spacing < thickness)
    if not len(thinner):
        return signal
    axis = int(random.choice(thinner))
    length, ratio = signal.shape[axis], thickness / float(spacing[axis])
    slices = max(1, round(length / ratio))
    there, back = linear_weights(length, slices, ratio), linear_weights(slices, length, 1 / ratio)
    return np.moveaxis(np.tensordot((back @ there).numpy(), signal, (1, axis)), 0, axis)


def gamma(signal: np.ndarray, exponent: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Another sequence or window: the signal to a power, or to its inverse."""
    return signal ** np.float32(exponent if random.random() < 0.5 else 1 / exponent)


def miscalibration(signal: np.ndarray, error: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A scale of HU that is off: attenuation times a factor."""
    return signal * np.float32(1 + error if random.random() < 0.5 else 1 - error)


CORRUPTIONS: Mapping[str, Mapping[str, Corruption]] = {
    "mr": {
        "bias_field": bias_field,
        "motion": motion,
        "ghosting": ghosting,
        "spike": spike,
        "noise": rician_noise,
        "blur": blur,
        "anisotropy": anisotropy,
        "contrast": gamma,
    },
    "ct": {"noise": gaussian_noise, "blur": blur, "anisotropy": anisotropy, "contrast": miscalibration},
}
"""By modality and name: of a signal `(X, Y, Z)` float32, a scale, the spacing in mm and a generator.

The signal of MR is 0 at the background and 1 at the 99th percentile; that of CT is attenuation, 0 for air at -1000 HU
and 1 for water.
"""
_HU = -1000.0, 1000.0  # of air, and from air to water
_SMALLEST = float(np.finfo(np.float32).tiny)


def _wave(shape: Sequence[int], spacing: np.ndarray, length: float, random: np.random.Generator) -> np.ndarray:
    """A complex plane wave of a length in mm, of drawn direction and phase, `shape` complex64."""
    direction = random.normal(size=3)
    direction /= np.linalg.norm(direction)
    wave = np.complex64(np.exp(2j * np.pi * random.random()))
    for axis, size in enumerate(shape):
        phase = np.exp(2j * np.pi * direction[axis] * spacing[axis] / length * np.arange(size)).astype(np.complex64)
        wave = wave * np.expand_dims(phase, [other for other in range(3) if other != axis])
    return np.asarray(wave)


def _fft(signal: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(fft.fft(signal, axis=axis))  # complex64, as the signal is float32


def _magnitude(lines: np.ndarray, axis: int) -> np.ndarray:
    return np.abs(np.asarray(fft.ifft(lines, axis=axis, overwrite_x=True)))


def _moved(signal: np.ndarray, reach: float, spacing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A volume shifted by `reach` mm and turned by `reach` degrees about its centre, in drawn directions."""
    from scipy.spatial.transform import Rotation

    shift, turn = (reach * vector / np.linalg.norm(vector) for vector in random.normal(size=(2, 3)))
    matrix = Rotation.from_rotvec(turn, degrees=True).as_matrix() * spacing / spacing[:, None]  # of voxels
    centre = (np.array(signal.shape) - 1) / 2
    offset = centre - matrix @ centre + shift / spacing
    return ndimage.affine_transform(signal, matrix, offset, order=1, mode="nearest")
