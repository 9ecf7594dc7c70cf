"""What recipes of satellite data take from the encoder that they start from: a trained one, or one of torchgeo's."""

import inspect

from geovision.models.torchgeo_encoders import check_license, find_encoder, wavelengths
from geovision.sensors import find_sensor
from pipelines.recipe.recipe import Recipe
from pipelines.recipe.scenes import SensorData
from shared_backbones import architectures, weights
from shared_backbones.catalogue import Catalogue
from shared_backbones.errors import InputError

TORCHGEO = "torchgeo"
"""The architecture whose weights have a name."""
_TRUNK = (
    "img_size", "patch_size", "in_chans", "channel_groups", "channel_embed", "embed_dim", "depth", "num_heads",
    "mlp_ratio",
)  # fmt: skip


def take_encoder_arguments(recipe: Recipe) -> None:
    """Give the network of a recipe the arguments of the encoder that it starts from, as the encoder's card has them.

    Those of the trunk are meant, such as its width and its patch; the recipe's own stand where training starts from
    another model. The recipe is changed, so that whatever is noted of it says what was trained.
    """
    if recipe.model.architecture == TORCHGEO:
        return _take_named_encoder(recipe)
    init = recipe.model.init
    if not init:
        return
    card = weights.read_card(Catalogue("geovision").find_model(init))
    given = card.get("arguments", {})
    is_autoencoder = getattr(architectures.find(card["architecture"]), "role", None) == "autoencoder"
    if not is_autoencoder and given.get("num_classes") != 0:
        return
    taken = inspect.signature(architectures.find(recipe.model.architecture).__init__).parameters
    recipe.model.arguments.update({name: given[name] for name in _TRUNK if name in given and name in taken})


def _take_named_encoder(recipe: Recipe) -> None:
    """Give a recipe the sensor, bands, numbers and size of the weights that torchgeo names, where it says them.

    Raises:
        InputError: torchgeo names no such weights, the command line asks for other bands, or nobody names a licence and
            the recipe does not accept that.
    """
    model, data = recipe.model, recipe.data
    assert isinstance(data, SensorData)  # noqa: S101 - of a kind of satellite data
    encoder = find_encoder(str(model.arguments.get("weights")))
    if model.init or model.backbone_weights:
        check_license(encoder, model.accept_license, "give model.accept_license=true")
    given = encoder.input
    if "bands" in given:
        wanted = [find_sensor(given["sensor"]).band(name).name for name in given["bands"]]
        for key, value, own in (("sensor", data.sensor, given["sensor"]), ("bands", data.bands, wanted)):
            if f"data.{key}" in recipe.overridden and value != own:
                raise InputError(
                    f"data.{key}={value}: {encoder.name} takes {own}; leave data.{key} out, as it follows from the "
                    "weights"
                )
        data.sensor, data.bands = given["sensor"], wanted
        data.normalisation, data.statistics = "mean_std", "init"
    is_map = data.kind == "scene_mapping"
    bands = [find_sensor(data.sensor).band(name).name for name in data.bands]
    model.arguments = {
        "img_size": data.patch if is_map else given["size"],
        **model.arguments,
        "in_chans": len(bands),
        "dense": is_map,
        **({} if "bands" in given else {"wavelengths": wavelengths(data.sensor, bands)}),
    }
