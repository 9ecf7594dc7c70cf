"""Where a run comes from: the commit of this suite, and of nobody else's repository."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

from pipelines.tracking import runs, source


def test_the_commit_is_that_of_the_suite():
    commit = source.environment_tags()["mlflow.source.git.commit"]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert commit == head.stdout.strip()


def test_a_repository_that_the_suite_is_installed_in_has_nothing_to_do_with_it(tmp_path: Path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    installed = tmp_path / "venv" / "source.py"
    installed.parent.mkdir()
    shutil.copyfile(source.__file__, installed)
    spec = importlib.util.spec_from_file_location("installed", installed)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tags = module.environment_tags()
    assert "version.torch" in tags and not [name for name in tags if "git" in name]


def test_files_that_a_server_keeps_are_not_local():
    for served in ("mlflow-artifacts:/1/abc/artifacts", "mlflow-artifacts://host/1", "s3://bucket/1", None):
        assert not runs._is_local(served), served
    for local in ("/srv/mlruns/1", "./mlruns/1", "file:///srv/mlruns/1"):
        assert runs._is_local(local), local
