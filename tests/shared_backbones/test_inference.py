import pytest
import torch
from torch import Tensor, nn

from shared_backbones.inference import (
    batch_norm_affine,
    fold_batch_norm,
    fold_pointwise,
    fold_pre_norm,
    optimize_for_inference,
)


def lively(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif tensor.is_floating_point():
            nn.init.normal_(tensor)
    return module.double().eval()


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(4)
        self.order: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x))

    def fold_(self) -> None:
        self.order.append("inner")
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution, self.norm = fold_batch_norm(self.convolution, self.norm), nn.Identity()


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def fold_(self) -> None:
        self.inner.order.append("outer")


def test_a_copy_is_folded_inside_out_and_the_model_is_untouched() -> None:
    model = lively(Outer()).train()
    assert isinstance(model, Outer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = optimize_for_inference(model)
    assert folded.inner.order == ["inner", "outer"]
    assert isinstance(folded.inner.norm, nn.Identity)
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(folded(x), model.eval()(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_a_batch_norm_goes_into_its_convolution(bias: bool) -> None:
    convolution, norm = nn.Conv2d(3, 5, 3, padding=1, bias=bias), nn.BatchNorm2d(5, eps=0.1)
    model = lively(nn.Sequential(convolution, norm))
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    expected = model(x)
    torch.testing.assert_close(fold_batch_norm(convolution, norm)(x), expected)


@pytest.mark.parametrize("second_bias", [True, False])
@pytest.mark.parametrize("first_bias", [True, False])
def test_a_pointwise_convolution_goes_into_the_next(first_bias: bool, second_bias: bool) -> None:
    first = nn.Conv2d(5, 3, 1, bias=first_bias)
    second = nn.Conv2d(3, 4, (2, 3), stride=2, bias=second_bias)
    model = lively(nn.Sequential(first, second))
    x = torch.randn(2, 5, 8, 9, dtype=torch.float64)
    expected = model(x)
    merged = fold_pointwise(first, second)
    torch.testing.assert_close(merged(x), expected)
    assert merged.in_channels == 5


def test_a_norm_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="statistics"):
        batch_norm_affine(nn.BatchNorm2d(3, track_running_stats=False))


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_goes_into_the_pointwise_convolution_after_it(bias: bool) -> None:
    torch.manual_seed(0)
    norm, convolution = nn.BatchNorm2d(4).double().eval(), nn.Conv2d(4, 6, 1, bias=bias).double()
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        expected = convolution(norm(x))
        torch.testing.assert_close(fold_pre_norm(norm, convolution)(x), expected)


@pytest.mark.parametrize("shape", [(1, 4, 6, 9, 8), (2, 4, 6, 5, 8), (1, 4, 40, 40, 40), (1, 4, 1, 1, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2, "bias": False},
        {"kernel_size": 1},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": (3, 1, 3), "padding": (2, 0, 2), "dilation": (2, 1, 2)},
        {"kernel_size": 3, "padding": "same", "groups": 4},
        {"kernel_size": 3, "padding": 1, "groups": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
    ],
)
def test_convolutions_of_volumes_are_the_same_in_inference_form(shape: tuple[int, ...], options: dict):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(4, 8, **options)).eval()
    images = torch.randn(shape)
    expected = network(images)
    folded = optimize_for_inference(network)
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(folded(images[0]), expected[0], rtol=1e-4, atol=1e-5)
    assert type(network[0]) is nn.Conv3d
