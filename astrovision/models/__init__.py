"""Networks for astronomical images. Importing this package makes their variants known to timm."""

from shared_backbones.networks import timm_registration

timm_registration.register(["astrovision.models.astroformer"])
