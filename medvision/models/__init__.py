"""Networks for medical images. Importing this package registers their variants with timm."""

from shared_backbones.networks import timm_registration

timm_registration.register(["medvision.models.duoformer", "medvision.models.medvitv2"])
