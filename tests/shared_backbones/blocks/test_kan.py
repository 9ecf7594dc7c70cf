import torch

from shared_backbones.blocks.kan import Kan, KanLayer


def test_a_layer_is_a_linear_map_of_bumps() -> None:
    torch.manual_seed(0)
    layer = KanLayer(3, 5).double()
    x = torch.randn(7, 3, dtype=torch.float64)
    normed = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = torch.zeros(7, 5, dtype=torch.float64)
    for i in range(3):
        for k in range(8):
            centre = -2 + 4 * k / 7
            bump = 1 / torch.cosh((normed[:, i] - centre) / 0.33) ** 2
            expected += bump[:, None] * layer.linear.weight[:, 8 * i + k].detach()
    torch.testing.assert_close(layer(x).detach(), expected, rtol=1e-6, atol=1e-6)  # the grid is made in float32


def test_the_grid_is_no_parameter_and_there_is_no_bias() -> None:
    layer = KanLayer(4, 2)
    assert [name for name, _ in layer.named_parameters()] == ["norm.weight", "norm.bias", "linear.weight"]
    torch.testing.assert_close(layer.grid, torch.linspace(-2, 2, 8))


def test_layers_follow_one_another() -> None:
    kan = Kan([4, 8, 3])
    x = torch.randn(2, 5, 4)
    assert torch.equal(kan(x), kan[1](kan[0](x))) and kan(x).shape == (2, 5, 3)


def test_bumps_are_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    kan = Kan([16, 32, 16])
    x = torch.randn(4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = kan(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, kan(x))
