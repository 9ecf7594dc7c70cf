"""Names that recipes had in version 0.1 and that are still read."""

from typing import Any, TypeAlias

Content: TypeAlias = dict[str, Any]
"""Content of a recipe's file, before its form is checked."""

KINDS = {
    "synthetic": "synthetic_volumes",
    "scenes": "scene_pretraining",
    "labelled_scenes": "scene_mapping",
    "labelled_images": "satellite_images",
}
KEYS = {"data": {"corrupted": "corruption_images"}, "train": {"learnt": "trainable"}}
"""Keys of each section, whatever the kind."""
RESIZED_CROP = ("scene_pretraining", "satellite_images")
"""Kinds whose `data.crop`, now a share of the side for images of every kind, was the range of areas of a crop."""


def use_current_names(content: Content) -> list[str]:
    """Rename what a recipe's content calls by a former name, in place.

    Where a key is there under both names the former wins: it was given later, by an override.

    Returns:
        A note for each name that was replaced.
    """
    notes = []
    data = content.get("data")
    if isinstance(data, dict):
        kind = data.get("kind")
        if isinstance(kind, str) and kind in KINDS:
            data["kind"] = KINDS[kind]
            notes.append(f"data.kind={kind} is now called {KINDS[kind]}")
    for section, names in _renamed_keys(data).items():
        values = content.get(section)
        if not isinstance(values, dict):
            continue
        for former in names.keys() & values.keys():
            values[names[former]] = values.pop(former)
            notes.append(f"{section}.{former} is now called {section}.{names[former]}")
    return sorted(notes)


def _renamed_keys(data: object) -> dict[str, dict[str, str]]:
    if isinstance(data, dict) and data.get("kind") in RESIZED_CROP:
        return {**KEYS, "data": {**KEYS["data"], "crop": "resized_crop"}}
    return KEYS
