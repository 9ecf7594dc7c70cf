"""The trained models that come with the package, and how a name or a folder becomes a model folder."""

from shared_backbones.catalogue import Catalogue

CATALOGUE = Catalogue("medvision")
bundled_models = CATALOGUE.bundled_models
find_model = CATALOGUE.find_model
model_card = CATALOGUE.model_card
