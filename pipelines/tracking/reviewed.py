"""The alias of registered models that readers accepted."""

import re
from collections.abc import Sequence

from pipelines.tracking.registry import WEIGHTS_TAG
from pipelines.tracking.stores import client_of, open_store, reaching, tracking_uri

REVIEWED = "reviewed"
"""The alias of the version of a model whose training was accepted last."""


def move_reviewed(judged: Sequence[tuple[str, bool]]) -> list[str]:
    """Move the alias `reviewed` of registered models as verdicts on trainings say.

    It moves to a version whose training was accepted; one whose training was not accepted loses it.

    Args:
        judged: Sha256 of the weights of each judged training, and whether it was accepted; the latest verdict last.

    Returns:
        A line for each model and verdict: what the alias is now, or why nothing has it.

    Raises:
        InputError: the store cannot be used.
    """
    if not judged:
        return []
    store, lines = tracking_uri(), []
    open_store(store)
    with reaching(store):
        client = client_of(store)
        for weights, accepted in judged:
            if not re.fullmatch(r"[0-9a-f]{64}", weights):
                raise ValueError("weights are not a sha256")
            versions = client.search_model_versions(f"tags.`{WEIGHTS_TAG}` = '{weights}'")
            if not versions:
                lines.append(f"model-{weights[:8]}: no registered version has these weights; no alias was moved")
            for name in sorted({version.name for version in versions}):
                numbers = [int(version.version) for version in versions if version.name == name]
                now = client.get_registered_model(name).aliases.get(REVIEWED)
                if accepted:
                    client.set_registered_model_alias(name, REVIEWED, str(max(numbers)))
                    lines.append(f"models:/{name}@{REVIEWED} is version {max(numbers)}")
                elif now is not None and int(now) in numbers:
                    client.delete_registered_model_alias(name, REVIEWED)
                    lines.append(f"models:/{name}@{REVIEWED} is no longer version {now}: it was not accepted")
    return lines
