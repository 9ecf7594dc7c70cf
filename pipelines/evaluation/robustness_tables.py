"""Tables of measurements under corruption, for reports."""

from collections.abc import Callable

from pipelines.evaluation.bootstrap import INTERVALS
from pipelines.evaluation.image_robustness import SEVERITIES, ImageCell, ImageMeasurement, PairedTests, mean_of
from pipelines.evaluation.volume_robustness import (
    NSD_TOLERANCE_MM,
    Usefulness,
    VolumeCell,
    VolumeMeasurement,
    severities_of,
)
from pipelines.report.results import ResultTable, Value
from pipelines.report.text import number_at, part_at, text_at
from shared_backbones.json_values import Document


def image_tables(measurement: ImageMeasurement) -> list[ResultTable]:
    """Tables of a classifier: the matrix, means, what each class lost, and comparisons with a baseline."""
    relative, paired = measurement.get("relative"), measurement.get("paired")
    return [
        _matrix(measurement),
        _means(measurement),
        _recalls(measurement),
        *([_relative_table(relative)] if relative else []),
        *([_paired_table(paired)] if paired else []),
    ]


def volume_tables(measurement: VolumeMeasurement) -> list[ResultTable]:
    """Tables of a segmentation: overlap under corruption, what each structure lost, and what the flags said."""
    clean = measurement["clean"]
    return [
        _volume_matrix(measurement, "Mean Dice under corruption", [clean["dice"]], lambda cell: cell["dice"]),
        _volume_matrix(measurement, f"Mean NSD at {NSD_TOLERANCE_MM:g} mm", [clean["nsd"]], lambda cell: cell["nsd"]),
        _structures(measurement),
        _volume_matrix(measurement, "Quality flags and warnings that the clean scan does not raise", [], _raised),
        *_usefulness(measurement["usefulness"]),
    ]


def _matrix(measurement: ImageMeasurement) -> ResultTable:
    """Balanced accuracy under each corruption and severity."""
    clean = measurement["clean"]["balanced_accuracy"]
    rows: list[list[Value]] = [
        [
            _title(name),
            clean,
            *(_with_interval(cell) for cell in measurement["cells"] if cell["corruption"] == name),
        ]
        for name in measurement["corruptions"]
    ]
    return {
        "title": f"Balanced accuracy of {measurement['images']} images under corruption, with 95 % intervals",
        "columns": ["Corruption", "Clean", *(f"Severity {severity}" for severity in SEVERITIES)],
        "rows": rows,
    }


def _means(measurement: ImageMeasurement) -> ResultTable:
    """Means over the severities; those of families where there are several."""
    means = dict(measurement["corruptions"])
    groups = [means, measurement["families"]] if len(measurement["families"]) > 1 else [means]
    rows: list[list[Value]] = [
        [_title(name), *(values[figure] for figure in INTERVALS), values["lost"]]
        for group in groups
        for name, values in group.items()
    ]
    clean: list[Value] = ["clean", *(measurement["clean"][figure] for figure in INTERVALS), 0.0]
    return {
        "title": "Means over the severities, by corruption and by family",
        "columns": ["Corruption", "Accuracy", "Balanced accuracy", "AUC", "ECE", "Balanced accuracy lost"],
        "rows": [clean, *rows],
    }


def _recalls(measurement: ImageMeasurement) -> ResultTable:
    """What each class lost."""
    recalls = measurement["recalls"]
    rows: list[list[Value]] = [
        [_title(name), *(_less(clean, mean) for clean, mean in zip(recalls["clean"], means, strict=True))]
        for name, means in recalls["corrupted"].items()
    ]
    return {
        "title": "Recall that each class lost, mean over the severities",
        "columns": ["Corruption", *recalls["classes"]],
        "rows": rows,
    }


def _relative_table(relative: Document) -> ResultTable:
    """Errors in units of a baseline's (`medvision.corruptions.relative_errors`)."""
    keys = ("mean_error", "baseline_error", "be", "rbe", "rbe_denominator")
    rows: list[list[Value]] = []
    corruptions = part_at(relative, "corruptions")
    for name in corruptions:
        figures = [number_at(corruptions, name, key) for key in keys]
        flagged = part_at(corruptions, name).get("flagged")
        rows.append([_title(name), *figures, "rBE says nothing: less than 0.01" if flagged else ""])
    clean = [number_at(relative, key) for key in ("clean_error", "baseline_clean_error")]
    means = [number_at(relative, key) for key in ("be", "rbe")]
    return {
        "title": f"Errors (1 - balanced accuracy) in units of those of {text_at(relative, 'baseline')}",
        "columns": ["Corruption", "Error", "Its error", "BE", "rBE", "Denominator of rBE", "Flag"],
        "rows": [
            ["clean", *clean, None, None, None, ""],
            *rows,
            ["mean", None, None, *means, None, ""],
            ["mean without flagged", None, None, None, number_at(relative, "rbe_unflagged"), None, ""],
        ],
    }


def _paired_table(paired: PairedTests) -> ResultTable:
    """Tests against a baseline."""
    rows: list[list[Value]] = [
        [
            _title(row["corruption"] or "clean"), row["severity"] or "", row["only_here"], row["only_there"],
            f"{row['p']:.2g}", f"{row['p_holm']:.2g}",
        ]
        for row in paired["tests"]
    ]  # fmt: skip
    return {
        "title": f"Images that only one is right on, against {paired['baseline']} (McNemar's exact test)",
        "columns": ["Corruption", "Severity", "Only this one", "Only the baseline", "p", "p after Holm"],
        "rows": rows,
    }


def _volume_matrix(
    measurement: VolumeMeasurement, title: str, clean: list[Value], value_of: Callable[[VolumeCell], Value]
) -> ResultTable:
    """A value under each corruption and severity."""
    rows: list[list[Value]] = [
        [_title(name), *clean, *(value_of(cell) for cell in measurement["cells"] if cell["corruption"] == name)]
        for name in measurement["corruptions"]
    ]
    steps = [f"Severity {severity}" for severity in severities_of(measurement)]
    return {"title": title, "columns": ["Corruption", *["Clean" for _ in clean], *steps], "rows": rows}


def _structures(measurement: VolumeMeasurement) -> ResultTable:
    """What each structure lost."""
    clean = {name: dice for name, dice in measurement["clean"]["dice_of"].items() if dice is not None}
    rows: list[list[Value]] = []
    for name in measurement["corruptions"]:
        cells = [cell for cell in measurement["cells"] if cell["corruption"] == name]
        lost = [
            mean_of([_less(dice, cell["dice_of"][structure]) for cell in cells]) for structure, dice in clean.items()
        ]
        rows.append([_title(name), *lost])
    return {
        "title": "Dice that each structure lost, mean over the severities",
        "columns": ["Corruption", *map(_title, clean)],
        "rows": rows,
    }


def _usefulness(useful: Usefulness) -> list[ResultTable]:
    """AUROC of flags and confidence, where there are both poor and other ones."""
    parts = {"cases": useful["cases"], "structures": useful["structures"]}
    if not any(figure is not None for part in parts.values() for figure in part["auroc"].values()):
        return []
    columns = [f"{name}: {part['poor']} of {part['count']} poor" for name, part in parts.items()]
    rows: list[list[Value]] = [
        [signal, *(part["auroc"].get(signal) for part in parts.values())] for signal in useful["cases"]["auroc"]
    ]
    return [
        {
            "title": f"AUROC of what can be seen without labels, against Dice below {useful['dice_below']:g}",
            "columns": ["Signal", *columns],
            "rows": rows,
        }
    ]


def _raised(cell: VolumeCell) -> str:
    """What a segmentation warns of."""
    codes = [flag["code"].replace("_", " ") for flag in cell["new_flags"]]
    counts = [f"{code} {codes.count(code)}" for code in dict.fromkeys(codes)]
    return ", ".join([*counts, *(["warnings"] if cell["new_warnings"] else [])]) or "none"


def _with_interval(cell: ImageCell) -> str:
    low, high = cell["balanced_accuracy_low"] or 0.0, cell["balanced_accuracy_high"] or 0.0
    return f"{cell['balanced_accuracy']:.3f} ({low:.3f} to {high:.3f})"


def _less(clean: float | None, other: float | None) -> float | None:
    return None if clean is None or other is None else clean - other


def _title(name: str) -> str:
    return name.replace("_", " ")
