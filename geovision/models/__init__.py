"""Networks for satellite images. Importing this package makes their variants known to timm."""

from shared_backbones.networks import timm_registration

timm_registration.register(["geovision.models.satmae_pp_vit"])
