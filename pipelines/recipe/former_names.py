"""Names that recipes had in version 0.1 and that are still read."""

from shared_backbones.json_values import Entries

KINDS = {
    "synthetic": "synthetic_volumes",
    "scenes": "scene_pretraining",
    "labelled_scenes": "scene_mapping",
    "labelled_images": "satellite_images",
}
KEYS = {"data": {"corrupted": "corruption_images"}, "train": {"learnt": "trainable"}}
"""Keys of each section, whatever the kind."""
_KEYS_OF_KINDS = {
    "scene_pretraining": {"crop": "resized_crop"},
    "satellite_images": {"crop": "augmentation.resized_crop", "resized_crop": "augmentation.resized_crop"},
}
"""Keys of `data` whose former name means something else to other kinds; a dot leads into a section of `data`."""

_LEFT_OUT = {"satellite_images": ("stride", "min_valid", "split.by", "split.block")}
"""Keys of `data` that were read, and meant nothing, in recipes of a kind."""


def use_current_names(content: Entries) -> list[str]:
    """Rename what a recipe's content calls by a former name, in place, and take out what never meant anything.

    Where a key is there under both names the former wins: it was given later, by an override.

    Returns:
        A note for each name that was replaced or taken out.
    """
    notes = []
    data = content.get("data")
    if isinstance(data, dict):
        kind = data.get("kind")
        if isinstance(kind, str) and kind in KINDS:
            data["kind"] = KINDS[kind]
            notes.append(f"data.kind={kind} is now called {KINDS[kind]}")
        notes += [f"data.{key} means nothing to {data['kind']} and is left out" for key in _left_out(data)]
    for section, names in _renamed_keys(data).items():
        values = content.get(section)
        if isinstance(values, dict):
            for former in [name for name in names if name in values]:
                if _move(values, former, names[former]):
                    notes.append(f"{section}.{former} is now called {section}.{names[former]}")
    return sorted(notes)


def _left_out(data: Entries) -> list[str]:
    """Take keys out of `data` that mean nothing to its kind; returns those that were there."""
    taken = []
    for key in _LEFT_OUT.get(str(data.get("kind")), ()):
        *sections, name = key.split(".")
        home = data.get(sections[0]) if sections else data
        if isinstance(home, dict) and name in home:
            del home[name]
            taken.append(key)
    return taken


def _move(values: Entries, former: str, current: str) -> bool:
    """Give an entry its current name; False where the section that it belongs to is none."""
    *sections, name = current.split(".")
    home = values
    for section in sections:
        if home.get(section) is None:
            home[section] = {}
        home = home[section]
        if not isinstance(home, dict):
            return False
    home[name] = values.pop(former)
    return True


def _renamed_keys(data: object) -> dict[str, dict[str, str]]:
    kind = data.get("kind") if isinstance(data, dict) else None
    return {**KEYS, "data": {**KEYS["data"], **_KEYS_OF_KINDS.get(str(kind), {})}}
