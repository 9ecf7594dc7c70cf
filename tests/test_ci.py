"""What `.ci/run` installs and requires, with an apt-get and a make that only note what they are asked for."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = {
    "nodejs": "node", "npm": "npm", "chromium": "chromium", "munge": "munged", "slurmctld": "slurmctld",
    "slurmd": "slurmd", "slurm-client": "sbatch", "iproute2": "ip",
}  # fmt: skip
PROGRAMS = tuple(PACKAGES.values())
ALL = "data,browser,cluster"

# An apt-get in a folder of files: `offline`, `fail-PACKAGE` with how often it fails, `hollow-PACKAGE` without program.
APT_GET = """
cd "$FOLDER"
while [ "$1" = -o ]; do shift 2; done
echo "apt-get $1 ${*: -1}" >> calls
if [ "$1" = update ]; then
  if [ -e offline ]; then echo "Err:1 http://mirror InRelease"; else echo "Hit:1 http://mirror InRelease"; fi
  exit 0
fi
package=${*: -1}
left=$(cat "fail-$package" 2> /dev/null || echo 0)
if [ "$left" -gt 0 ]; then
  echo $((left - 1)) > "fail-$package"
  exit 100
fi
program=$(cat "package-$package")
[ -e "hollow-$package" ] || ln -s true "$FOLDER/bin/$program"
"""
MAKE = """
echo "make $1 ${DOMAIN_VISION_REQUIRE:-}" >> "$FOLDER/calls"
left=$(cat "$FOLDER/fail-make-$1" 2> /dev/null || echo 0)
if [ "$left" -gt 0 ]; then echo $((left - 1)) > "$FOLDER/fail-make-$1"; exit 2; fi
[ "$1" = viewer ] || echo "1 skipped [no tea: tests/$1.py::test_tea]" > "$DOMAIN_VISION_SKIPPED"
"""


class Machine:
    """A checkout's `.ci` on a machine that has a few programs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        shutil.copytree(ROOT / ".ci", folder / "checkout" / ".ci")
        for name in ("bash", "cat", "dirname", "grep", "ln", "mktemp", "rm", "true"):
            program = shutil.which(name)
            assert program, name
            (self.bin / name).symlink_to(program)
        self.program("apt-get", APT_GET)
        self.program("make", MAKE)
        self.program("id", "echo 0")
        self.program("sleep", "")
        for package, program in PACKAGES.items():
            self.note(f"package-{package}", program)

    def program(self, name: str, text: str = "") -> None:
        (self.bin / name).write_text(f"#!{shutil.which('bash')}\n{text}\n")
        (self.bin / name).chmod(0o755)

    def note(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def run(self, code: int = 0) -> str:
        """The last line of a run that ends with a code."""
        environment = {"PATH": str(self.bin), "FOLDER": str(self.folder), "TMPDIR": str(self.folder)}
        command = [str(self.bin / "bash"), str(self.folder / "checkout" / ".ci" / "run")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        self.errors = done.stderr
        return done.stdout.splitlines()[-1]

    def calls(self, start: str = "") -> list[str]:
        """What was asked for, in order, of those calls that begin so."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(start)]


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Machine]:
    """A machine that has some programs."""

    def make(*programs: str) -> Machine:
        made = Machine(tmp_path)
        for name in programs:
            made.program(name)
        return made

    return make


def without(*names: str) -> list[str]:
    return [name for name in PROGRAMS if name not in names]


def test_a_complete_machine_installs_nothing_and_requires_all(machine: Callable[..., Machine]):
    full = machine(*PROGRAMS)
    line = full.run()
    assert full.calls() == [f"make {target} {ALL}" for target in ("viewer", "test", "test-cluster")]
    assert line == (
        f"required: {ALL} | make test: 1 skipped [no tea: tests/test.py::test_tea]"
        " | make test-cluster: 1 skipped [no tea: tests/test-cluster.py::test_tea]"
    )


def test_only_what_is_missing_is_installed_where_node_is_there_already(machine: Callable[..., Machine]):
    partial = machine(*without("chromium", "ip"))
    assert partial.run().startswith(f"required: {ALL} |")
    assert partial.calls("apt-get") == ["apt-get update update", "apt-get install chromium", "apt-get install iproute2"]


def test_packages_are_installed_one_by_one(machine: Callable[..., Machine]):
    bare = machine()
    assert bare.run().startswith(f"required: {ALL} |")
    assert bare.calls("apt-get install") == [f"apt-get install {package}" for package in PACKAGES]
    assert bare.calls("make") == [f"make {target} {ALL}" for target in ("viewer", "test", "test-cluster")]


def test_another_chromium_will_do(machine: Callable[..., Machine]):
    other = machine(*without("chromium"), "google-chrome")
    assert other.run().startswith(f"required: {ALL} |") and not other.calls("apt-get")


def test_a_package_is_tried_three_times(machine: Callable[..., Machine]):
    flaky = machine(*without("chromium"))
    flaky.note("fail-chromium", "2")
    assert flaky.run().startswith(f"required: {ALL} |")
    assert len(flaky.calls("apt-get install chromium")) == 3


@pytest.mark.parametrize("fault", ["fail-chromium", "hollow-chromium"])
def test_a_mirror_that_answers_and_a_package_that_does_not_install_fail(machine: Callable[..., Machine], fault: str):
    broken = machine(*without("chromium"))
    broken.note(fault, "9")
    line = broken.run(code=1)
    assert "the mirror of apt answers, but the package chromium cannot be installed" in broken.errors
    assert len(broken.calls("apt-get install chromium")) == 3 and not broken.calls("make")
    assert line.endswith("make test: not finished | make test-cluster: not finished")


def test_without_a_mirror_what_is_there_is_required_and_the_last_line_says_so(machine: Callable[..., Machine]):
    offline = machine(*without("npm", "chromium"))
    offline.note("offline")
    line = offline.run()
    assert line.startswith("required: data,cluster; not installed, as no mirror of apt answers: npm chromium | ")
    assert offline.calls("apt-get") == ["apt-get update update"] * 3
    assert offline.calls("make") == ["make test data,cluster", "make test-cluster data,cluster"]


def test_without_root_or_apt_nothing_is_installed(machine: Callable[..., Machine]):
    other = machine(*without("slurmd"))
    other.program("id", "echo 1000")
    assert other.run().startswith("required: data,browser; not installed, as apt-get needs root: slurmd | ")
    (other.bin / "apt-get").unlink()
    assert other.run().startswith("required: data,browser; not installed, as there is no apt-get: slurmd | ")


def test_the_viewer_is_tried_three_times_and_then_fails(machine: Callable[..., Machine]):
    full = machine(*PROGRAMS)
    full.note("fail-make-viewer", "2")
    full.run()
    assert len(full.calls("make viewer")) == 3 and len(full.calls("make test ")) == 1
    full.note("fail-make-viewer", "3")
    full.run(code=2)
    assert len(full.calls("make viewer")) == 6 and len(full.calls("make test ")) == 1


def test_a_failure_of_the_tests_is_that_of_the_run_and_the_last_line_still_stands(machine: Callable[..., Machine]):
    full = machine(*PROGRAMS)
    full.note("fail-make-test-cluster", "1")
    line = full.run(code=2)
    assert "| make test: 1 skipped [no tea: " in line and line.endswith("| make test-cluster: not finished")
