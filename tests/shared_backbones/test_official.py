from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from shared_backbones import official
from shared_backbones.errors import InputError


class TestForeignWeights:
    names: ClassVar[dict[str, Any]] = {"weight": [["a.0", "a.1"], ["b.0", "b.1"]], "bias": "bias"}

    @staticmethod
    def module() -> nn.Module:
        module = nn.Module()
        module.weight = nn.Parameter(torch.zeros(2, 2, 3))
        module.bias = nn.Parameter(torch.zeros(3))
        return module

    @staticmethod
    def state() -> dict[str, Any]:
        values = {name: torch.full((3,), float(i)) for i, name in enumerate(("a.0", "a.1", "b.0", "b.1"))}
        return values | {"bias": torch.arange(3).half()}

    def test_names_are_mapped_and_stacked(self) -> None:
        module = self.module()
        official.load_foreign(module, self.state() | {"old.index": 1}, self.names, [r"old\."])
        assert module.get_parameter("weight")[:, :, 0].tolist() == [[0, 1], [2, 3]]
        assert module.get_parameter("bias").tolist() == [0, 1, 2]
        assert module.get_parameter("bias").dtype == torch.float32

    def test_a_prefix_goes_only_when_all_have_it(self) -> None:
        state = {f"module.{name}": tensor for name, tensor in self.state().items()}
        official.load_foreign(self.module(), state, self.names)
        with pytest.raises(InputError, match=r"missing 5 \(a\.0, a\.1, b\.0, b\.1, bias\); unexpected 6"):
            official.load_foreign(self.module(), state | {"other": 1}, self.names)

    def test_values_are_checked(self) -> None:
        with pytest.raises(InputError, match=r"the state dict: b\.1 has shape \(2,\), expected \(3,\)"):
            official.load_foreign(self.module(), self.state() | {"b.1": torch.zeros(2)}, self.names)
        with pytest.raises(InputError, match=r"bias holds values that are not finite"):
            official.load_foreign(self.module(), self.state() | {"bias": torch.full((3,), torch.inf)}, self.names)

    def test_files_with_code_are_not_run(self, tmp_path: Path) -> None:
        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return (tmp_path.joinpath("touched").touch, ())

        torch.save({"model": self.state(), "payload": Payload()}, tmp_path / "evil.pth")
        with pytest.raises(InputError, match=r"evil\.pth: holds other objects than tensors"):
            official.load_foreign(self.module(), tmp_path / "evil.pth", self.names)
        assert not (tmp_path / "touched").exists()

    @pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
    def test_files_that_are_none_are_refused(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            official.load_foreign(self.module(), path, self.names)
        for content in (b"", b"neither of the formats", b"PK\x03\x04 cut short"):
            path.write_bytes(content)
            with pytest.raises(InputError, match=name):
                official.load_foreign(self.module(), path, self.names)
        torch.save([1, 2], tmp_path / "list.pth")
        with pytest.raises(InputError, match="holds a list, expected a state dict"):
            official.load_foreign(self.module(), tmp_path / "list.pth", self.names)
