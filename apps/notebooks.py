"""`python -m apps.notebooks [FOLDER [NAME ...]]`: runs notebooks of the documentation, and writes them as pages."""

import base64
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from shared_backbones.files import replacing

if TYPE_CHECKING:
    from nbformat import NotebookNode

SOURCES = Path(__file__).parent.parent / "docs" / "notebooks"
_SECONDS = 900  # that a cell may take


def executed(source: Path) -> "NotebookNode":
    """The notebook of a source in jupytext's percent format, with the outputs of all cells.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(source)
    # what the programs are called by, in the environment that runs this
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(SOURCES.parent.parent)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=_SECONDS, kernel_name="python3", resources=resources).execute()
    return notebook


def write_page(notebook: "NotebookNode", name: str, folder: Path) -> Path:
    """Write a notebook that has run as a page of Markdown with pictures; returns the page's path.

    Args:
        notebook: With its outputs.
        name: What the page and its source are called.
        folder: That they are written to.
    """
    note = f"*Written from [{name}.py]({name}.py) by `python -m apps.notebooks`; `jupytext --to ipynb {name}.py`"
    lines, pictures = [], 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines += [cell.source, ""]
            continue
        lines += ["```python", cell.source, "```", ""]
        for kind, value in _outputs(cell):
            if kind == "text":
                lines += ["```text", value.rstrip(), "```", ""]
            else:
                pictures += 1
                picture = f"{name}-{pictures}.webp"
                _save(value, folder / picture)
                lines += [f"![What the cell above draws]({picture})", ""]
    page = folder / f"{name}.md"
    with replacing(page) as place:
        place.write_text("\n".join([*lines, note, "makes a notebook of it.*", ""]), encoding="utf-8")
    return page


def _outputs(cell: "NotebookNode") -> Iterator[tuple[str, str]]:
    """What a cell printed and drew, as texts and as PNG files in base64; what it complained of is left out."""
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            yield "text", output.text
        elif "image/png" in output.get("data", {}):
            yield "picture", output.data["image/png"]
        elif output.output_type == "execute_result":
            yield "text", output.data["text/plain"]


def _save(png: str, path: Path) -> None:
    """Save a picture small."""
    from PIL import Image

    with replacing(path) as place, Image.open(BytesIO(base64.b64decode(png))) as picture:
        picture.convert("RGB").save(place, "WEBP", quality=75, method=6)


def main(folder: Path, names: Sequence[str]) -> None:
    """Run notebooks, by default all, and write their pages into a folder."""
    for name in names or sorted(source.stem for source in SOURCES.glob("*.py")):
        print(write_page(executed(SOURCES / f"{name}.py"), name, folder).name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES, sys.argv[2:])
