"""The promises that hold for the whole checkout, whatever a module does."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGES: list[str] = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
PROGRAMS: list[str] = [name for name in PACKAGES if name in PROJECT["scripts"]]
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES]

# An audit hook sees the sockets of C extensions' Python layers too, and cannot be undone by the module under test.
OFFLINE = """
import sys
def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        raise RuntimeError(f"{event} while offline")
sys.addaudithook(refuse)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_every_package_has_modules():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)


def test_every_module_imports_with_sockets_forbidden():
    code = f"import importlib\nfor name in {MODULES!r}:\n    print(name, flush=True)\n    importlib.import_module(name)"
    done = python(OFFLINE + code)
    assert done.returncode == 0, f"{done.stdout.split()[-1:]}: {done.stderr}"
    assert done.stdout.split() == MODULES


def test_the_socket_guard_guards():
    done = python(OFFLINE + "import socket\nsocket.create_connection(('127.0.0.1', 9))")
    assert "while offline" in done.stderr


@pytest.mark.parametrize(
    "code",
    [
        *(f"import {package}" for package in PACKAGES),
        *(
            f"from apps.cli.{program}.program import main\n"
            f"sys.argv = ['{program}', '--help']\ntry: main()\nexcept SystemExit: pass"
            for program in PROGRAMS
        ),
    ],
    ids=[*PACKAGES, *(f"{program} --help" for program in PROGRAMS)],
)
def test_starting_up_leaves_the_heavy_packages_alone(code: str):
    heavy = {
        "torch", "numpy", "scipy", "nibabel", "rasterio", "astropy", "monai", "lightning", "mlflow", "timm",
        "torchvision", "pandas", "torchgeo",
    }  # fmt: skip
    done = python(f"import sys\n{code}\nprint('loaded:', *sorted({heavy!r} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


@pytest.mark.parametrize(("program", "model"), [("medvision", "chest-28"), ("astrovision", "galaxy-morphology")])
def test_a_picture_is_classified_without_what_others_need(program: str, model: str, tmp_path: Path):
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64)).save(picture)
    others = {"nibabel", "pydicom", "jinja2", "h5py", "scipy", "sklearn", "openvino", "rasterio", "mlflow"}
    words = [program, "classify", "-i", str(picture), "-o", str(tmp_path / "t.csv"), "--model", model]
    done = python(
        f"import sys\nfrom apps.cli.{program}.program import main\nsys.argv = {words!r}\n"
        f"try: main()\nexcept SystemExit as end: assert not end.code\n"
        f"print('loaded:', *sorted({others!r} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_every_extra_named_in_a_message_exists():
    named = {}
    for path in [*SOURCES, *ROOT.glob("*.md")]:
        text = path.read_text()
        for extras in re.findall(r"domain-vision\[([\w, -]+)\]", text):
            named |= {extra.strip(): path for extra in extras.split(",")}
        if path.suffix == ".py":
            for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
                if isinstance(call.func, ast.Name | ast.Attribute) and ast.unparse(call.func).endswith("require"):
                    literals = [
                        value.value
                        for value in [*call.args, *(k.value for k in call.keywords)]
                        if isinstance(value, ast.Constant)
                    ]
                    named |= {extra: path for extra in literals[1:]}
    assert {extra: path for extra, path in named.items() if extra not in PROJECT["optional-dependencies"]} == {}


def test_every_requirement_is_pinned_within_its_range():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        pin.name: next(iter(pin.specifier)).version
        for pin in map(Requirement, (s for s in lines if not s.startswith("#")))
    }
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (Requirement(text) for group in groups for text in group):
        name = canonicalize_name(requirement.name)
        if name != PROJECT["name"]:
            assert requirement.specifier.contains(pins[name]), f"{requirement} against {pins[name]}"


def test_no_file_names_a_place_on_one_machine():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files are the project's own is not known")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    place = re.compile(rb"(?<![\w.$}])/(work|root|home/\w+|tmp|Users/\w+|opt/wheels)/[\w.]")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert len(paths) > len(SOURCES)
    found = {
        path.relative_to(ROOT).as_posix(): match[0]
        for path in paths
        if path.is_file() and (match := place.search(path.read_bytes()))
    }
    assert found == {}
