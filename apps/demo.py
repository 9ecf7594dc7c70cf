"""`python -m apps.demo`: segments the ICBM152 average T1 into `./demo-output/`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from shared_backbones.errors import InputError

OUTPUT = Path("demo-output")
SCAN = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def average_brain() -> Path:
    """Find the average T1-weighted brain of 152 people (ICBM 2009a, 1 mm, skull-stripped) in the nilearn package.

    Nothing of nilearn is imported.

    Raises:
        InputError: nilearn is not installed, or does not hold the scan.
    """
    package = importlib.util.find_spec("nilearn")
    if package is None or package.origin is None:
        raise InputError('nilearn, which holds the demo scan, is not installed; run: pip install "domain-vision[demo]"')
    scan = Path(package.origin).parent / SCAN
    if not scan.is_file():
        raise InputError(f'this nilearn does not hold {SCAN}; run: pip install "nilearn==0.14.1"')
    return scan


def main() -> int:
    """Run `medvision segment`, which says where its results are, on the average brain; returns its exit code."""
    try:
        scan = average_brain()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    program = Path(sys.executable).with_name("medvision")
    done = subprocess.run([program, "segment", "--input", scan, "--output", OUTPUT])  # noqa: S603 - our own program
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
