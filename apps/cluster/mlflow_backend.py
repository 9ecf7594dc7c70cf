"""`mlflow run . --backend domain-vision-slurm -c slurm.json`: MLflow projects as jobs of SLURM."""

import os
import sys
from pathlib import Path

from mlflow.entities import RunStatus
from mlflow.exceptions import ExecutionException
from mlflow.projects import utils
from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.projects.submitted_run import SubmittedRun

from apps.cluster.slurm import SlurmJob, SlurmSettings, batch_script, check, submit
from pipelines.tracking import stores
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document


class BackendSettings(SlurmSettings):
    """Content of the JSON file of `--backend-config`."""

    wait: bool = True
    """Wait until the job has ended: the program `mlflow run` itself waits for no backend but its own."""


class SlurmBackend(AbstractBackend):
    """Queues an entry point of a project, as `BackendSettings` say."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: dict[str, str],
        version: str | None,
        backend_config: Document,
        tracking_uri: str,
        experiment_id: str,
    ) -> "SlurmRun":
        """Queue it, with the run that MLflow makes.

        Raises:
            ExecutionException: in one line, what the user can fix; or the job was waited for and did not complete.
        """
        folder = utils.fetch_and_validate_project(project_uri, version, entry_point, params)
        mlflows = {value for name, value in vars(utils).items() if name.startswith("PROJECT_")}
        own = {name: value for name, value in backend_config.items() if name not in mlflows}
        try:
            settings = BackendSettings.read(own)
            command = utils.get_entry_point_command(
                utils.load_project(folder), entry_point, params, backend_config.get(utils.PROJECT_STORAGE_DIR)
            )
            script = batch_script(settings, entry_point, command[0])
            stores.check_seen_from_nodes(tracking_uri)
            stores.open_store(tracking_uri)
            check(script, folder)
            run = utils.get_or_create_run(None, project_uri, experiment_id, folder, version, entry_point, params)
            # the project's `python` is the one that queues it
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
            job = submit(
                script,
                settings,
                uri=tracking_uri,
                run_id=run.info.run_id,
                folder=folder,
                environment={"PATH": path},
            )
        except InputError as error:
            raise ExecutionException(str(error)) from None
        print(f"job {job}: queued; run {job.run_id}; log {job.log}", flush=True)
        if settings.wait and (state := job.wait()) != "COMPLETED":
            raise ExecutionException(f"job {job}: ended as {state}; its log says more: {job.log}")
        return SlurmRun(job)


class SlurmRun(SubmittedRun):
    """A queued entry point, as MLflow follows it."""

    def __init__(self, job: SlurmJob) -> None:
        self.job = job

    @property
    def run_id(self) -> str:
        """Id of the run in the tracking store."""
        return self.job.run_id

    def wait(self) -> bool:
        """Wait until the job has ended; returns whether it completed."""
        return self.job.wait() == "COMPLETED"

    def get_status(self) -> int:
        """MLflow's status of the job."""
        return RunStatus.from_string(self.job.status())

    def cancel(self) -> None:
        """End the job."""
        self.job.cancel()
        self.job.wait()


def build() -> SlurmBackend:
    """What the entry point of group `mlflow.project_backend` names."""
    return SlurmBackend()
