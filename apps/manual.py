"""`python -m apps.manual`: writes the pages of `docs/reference/` that follow from the code."""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import typer.main

from shared_backbones.files import replacing

Command: TypeAlias = Any
"""A command, option or argument of click, of which Typer has a copy of its own."""
Schema: TypeAlias = Mapping[str, Any]
PAGES = Path(__file__).parent.parent / "docs" / "reference"
PROGRAMS = ("medvision", "geovision", "astrovision")
_DATA_PAGES = {
    "recipe-data.md": "scans, images and galaxies",
    "recipe-scenes.md": "scenes and satellite images",
}
_NOTE = "<!-- Written by `python -m apps.manual`; change the help texts or docstrings instead. -->"


def command_line(program: str) -> str:
    """The page of a program: each command with its arguments and options, as `--help` has them.

    Options that the first program has, too, under the same command, are on its page alone.
    """
    group = _group(program)
    first = {} if program == PROGRAMS[0] else dict(_commands(_group(PROGRAMS[0])))
    lines = [_NOTE, "", f"# {program}", "", _sentence(group.help), ""]
    known: dict[tuple[str, ...], str] = {}
    for name, command in _commands(group):
        parameters = _shown(command)
        arguments = [_argument(part) for part in parameters if part.param_type_name == "argument"]
        usage = " ".join([program, name, "[OPTIONS]", *arguments])
        lines += [f"## {name}", "", f"`{usage}`: {_sentence(command.help)}", ""]
        rows = tuple(map(_row, parameters))
        same = first.get(name)
        if rows and same is not None and rows == tuple(map(_row, _shown(same))):
            lines += [f"Its options are those of [{PROGRAMS[0]}]({PROGRAMS[0]}.md#{name.replace(' ', '-')}).", ""]
        elif rows and rows in known:
            lines += [f"Its options are those of [{known[rows]}](#{known[rows].replace(' ', '-')}).", ""]
        elif rows:
            known[rows] = name
            lines += ["| option | what it is | default |", "|---|---|---|", *rows, ""]
    return _page(lines)


def recipes() -> dict[str, str]:
    """The pages of recipes by name, from the classes that read them: of a recipe, and of its section `data`."""
    from pipelines.recipe.recipe import Recipe

    schema = Recipe.model_json_schema()
    parts = {name: part for name, part in sorted(schema["$defs"].items()) if "properties" in part}
    of_data = _named_by(schema["properties"]["data"], parts)
    lines = [_NOTE, "", "# Recipes", "", "A recipe is one YAML file. `medvision recipes show NAME` prints one, and"]
    lines += ["`medvision recipes schema` the JSON schema of all, for editors.", "", *_section("recipe", schema)]
    for name in parts:
        if name not in of_data:
            lines += _section(name, parts[name])
    made = {"recipes.md": _page(lines)}
    for page, title in _DATA_PAGES.items():
        text = f"The section `data` of a recipe of {title}: one for each `kind`, and its parts."
        data = [_NOTE, "", f"# Recipes: {title}", "", text, ""]
        for name in sorted(of_data):
            data += _section(name, parts[name]) if _page_of(name) == page else []
        made[page] = _page(data)
    return made


def _page_of(section: str) -> str:
    """The page that has a section of recipes; empty for the first one."""
    if not section.endswith(("Data", "Split", "Augmentation")):
        return ""
    return "recipe-scenes.md" if "Scene" in section or "Satellite" in section else "recipe-data.md"


def _named_by(part: Command, parts: Schema) -> set[str]:
    """Names of the sections that a part of a schema refers to, and those that these refer to."""
    if isinstance(part, list):
        return set().union(*(_named_by(one, parts) for one in part))
    if not isinstance(part, dict):
        return set()
    named = set().union(*(_named_by(one, parts) for key, one in part.items() if key != "discriminator"))
    own = str(part.get("$ref", "")).rpartition("/")[2]
    return named | ({own} | _named_by(parts[own], parts) if own in parts else set())


def python_api() -> str:
    """The page of the public classes and functions, which mkdocstrings fills from their docstrings."""
    lines = [_NOTE, "", "# Python", "", "What the packages export. Importing one of them imports nothing heavy.", ""]
    for package in (*PROGRAMS, "shared_backbones"):
        module = importlib.import_module(package)
        lines += [f"## {package}", "", _sentence(module.__doc__), ""]
        for name in module.__all__:
            thing = getattr(module, name)
            lines += [f"### {package}.{name}", "", f"::: {thing.__module__}.{name}", ""]
    return _page(lines)


def corruptions() -> str:
    """The page of corruptions, from the docstrings of the functions that make them."""
    from apps.corruptions import FAMILIES

    lines = [
        _NOTE,
        "",
        "# Corruptions",
        "",
        "What `robustness` does to images, in five steps of severity. How to measure",
    ]
    lines += ["with them: [Measure robustness](../how-to/robustness.md).", ""]
    return _page([*lines, *(line for family in FAMILIES for line in family.section())])


def pages() -> dict[Path, str]:
    """The generated pages, by path."""
    made = {PAGES / f"{program}.md": command_line(program) for program in PROGRAMS}
    made |= {PAGES / name: text for name, text in recipes().items()}
    return {**made, PAGES / "python.md": python_api(), PAGES / "corruptions.md": corruptions()}


def _group(program: str) -> Command:
    return typer.main.get_command(importlib.import_module(f"apps.cli.{program}.program").app)


def _shown(command: Command) -> list[Command]:
    """Arguments and options of a command that `--help` lists."""
    return [part for part in command.params if part.name != "help" and not getattr(part, "hidden", False)]


def _commands(group: Command, before: str = "") -> Iterator[tuple[str, Command]]:
    """All commands below a group, by what is typed."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _argument(part: Command) -> str:
    name = (part.metavar or part.name).strip("[]{}. ").upper()
    name = f"{name}..." if part.nargs == -1 else name
    return name if part.required else f"[{name}]"


def _row(part: Command) -> str:
    """An option or argument as a row of a table."""
    if part.param_type_name == "argument":
        name = f"`{_argument(part)}`"
    else:
        name = ", ".join(f"`{option}`" for option in (*part.opts, *part.secondary_opts))
    default = getattr(part.default, "value", part.default)
    shown = "needed" if part.required else "" if default in (None, False, ()) else f"`{default}`"
    return f"| {name} | {_cell(str(part.help or ''))} | {_cell(shown)} |"


def _section(name: str, schema: Schema) -> list[str]:
    lines = [f"## {name}", "", _sentence(schema.get("description", "")), ""]
    lines += ["| key | type | default | what it is |", "|---|---|---|---|"]
    for key, field in schema["properties"].items():
        default = "needed" if key in schema.get("required", ()) else _value(field.get("default"))
        lines.append(f"| `{key}` | {_cell(_type(field))} | {_cell(default)} | {_cell(field.get('description', ''))} |")
    return [*lines, ""]


def _value(value: object) -> str:
    return "" if value is None or value == {} or value == [] else f"`{value}`"


def _type(field: Schema) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}]({_page_of(name)}#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(_type(part) for part in field[key]))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array" and "items" in field:
        return f"list of {_type(field['items'])}"
    if field.get("type") == "null":
        return "none"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[key]:g}" for key, sign in bounds.items() if isinstance(field.get(key), (int, float))]
    return " ".join([str(field.get("type", "any")), *([f"({', '.join(limits)})"] if limits else [])])


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    parts = _sentence(text).replace("|", "\\|").split("`")
    for number in range(0, len(parts), 2):  # what is not code
        parts[number] = parts[number].replace("<", "&lt;").replace("[", "\\[")
    return "`".join(parts)


def _page(lines: list[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        with replacing(path) as place:
            place.write_text(text, encoding="utf-8")
        print(path.relative_to(PAGES.parent.parent))


if __name__ == "__main__":
    main()
