"""The table of layouts: each says what it takes, and is imported alone."""

import subprocess
import sys

import pytest

from pipelines.data.image_layouts import LAYOUTS, MASK_LAYOUTS, MASKED_LAYOUTS, SATELLITE_LAYOUTS, find_layout
from shared_backbones.labelled_images import Layout


@pytest.mark.parametrize("layouts", [LAYOUTS, SATELLITE_LAYOUTS, MASK_LAYOUTS, MASKED_LAYOUTS])
def test_every_layout_has_its_name_and_describes_its_options(layouts: dict[str, str]):
    for name in (name.replace("NAME", "BigEarthNetV2") for name in layouts):
        layout = find_layout(name, layouts)
        assert isinstance(layout, Layout) and layout.name == name
        assert all(f"`{option}`" in str(type(layout).__doc__) for option in layout.options)
        own = [cls for cls in type(layout).__mro__ if cls is not Layout and "find" in vars(cls)]
        assert own, f"{name} lists no images"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_imports_no_other_domain(name: str):
    lines = ["import sys", "from pipelines.data.image_layouts import find_layout"]
    code = "; ".join([*lines, f"find_layout({name!r})", "print(*sys.modules)"])
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = {LAYOUTS[name].partition(".")[0]}
    domains = {"medvision", "astrovision", "geovision"}
    assert {module.partition(".")[0] for module in modules} & domains == own & domains
    assert not {"torch", "h5py"} & set(modules)
