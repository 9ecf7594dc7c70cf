"""Segment a scan and print the volumes of its structures: python segment_a_scan.py scan.nii.gz"""

import sys

import medvision


def main(scan: str) -> dict[str, float]:
    segmenter = medvision.Segmenter("brain-structures")  # loaded once, for any number of scans
    result = segmenter.segment(scan)
    result.save("labels.nii.gz")
    (row,) = result.volumes()
    volumes = {name: value for name, value in row.items() if name.endswith("_ml") and value not in ("", None)}
    for name, value in volumes.items():
        print(f"{name:32} {float(value):8.1f}")
    return volumes


if __name__ == "__main__":
    main(sys.argv[1])
