"""Networks for medical images. Importing this package makes their variants known to timm."""

from shared_backbones import timm_models

timm_models.register(["medvision.models.duoformer", "medvision.models.medvitv2"])
