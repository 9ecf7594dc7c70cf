import numpy as np
import pytest
import torch

from shared_backbones.blocks.embeddings import resample_positions, sine_cosine, sine_cosine_2d


def test_codes_are_sines_then_cosines() -> None:
    code = sine_cosine(torch.arange(5), 6).numpy()
    assert code.dtype == np.float32 and code.shape == (5, 6)
    for position in range(5):
        angles = [position / 10000 ** (i / 3) for i in range(3)]
        np.testing.assert_allclose(code[position], [*np.sin(angles), *np.cos(angles)], atol=1e-6)
    with pytest.raises(ValueError, match="width 5 of a sine-cosine code"):
        sine_cosine(torch.arange(5), 5)


def test_the_first_half_codes_the_column() -> None:
    table = sine_cosine_2d((2, 3), 8).unflatten(0, (2, 3))
    assert torch.equal(table[0, :, :4], table[1, :, :4]) and torch.equal(table[:, 0, 4:], table[:, 2, 4:])
    torch.testing.assert_close(table[1, 2], torch.cat([sine_cosine(torch.tensor([n]), 4)[0] for n in (2, 1)]))
    with pytest.raises(ValueError, match="width 6 of a 2-D sine-cosine code: expected a multiple of 4"):
        sine_cosine_2d((2, 2), 6)


def test_positions_are_resampled_and_what_stands_before_them_stays() -> None:
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 6), torch.linspace(0, 1, 6), indexing="ij")
    table = torch.stack([rows.flatten(), columns.flatten()], 1)
    table = torch.cat([torch.tensor([[7.0, 8.0]]), table])[None]
    found = resample_positions(table, (6, 6), (3, 12))
    assert found.shape == (1, 1 + 36, 2) and torch.equal(found[:, 0], table[:, 0])
    plane = found[0, 1:].unflatten(0, (3, 12))
    torch.testing.assert_close(plane[:, 0, 0], torch.tensor([0.1, 0.5, 0.9]), atol=0.02, rtol=0)
    assert (plane[0, :, 1].diff() > 0).all()
    assert resample_positions(table, (6, 6), (6, 6)) is table
