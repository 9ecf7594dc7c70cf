"""From a volume to labels on its own grid, with a 2-D network run over slices or a 3-D one run over windows.

The volume is turned to RAS axes, resampled to the model's spacing, scaled as its card says and cut to the head's box.
The network's class scores are kept as uint8 at the model's spacing and resampled to the input's grid block by block:
there is never a full-resolution array of all classes.

Longer than 400 lines: the whole way of a volume, from its header to its labels, is in one place.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medvision.channels import Channels
from medvision.contract import InputContract, Setting, modality_conflict
from medvision.models.catalogue import find_model
from medvision.parts import Detail
from medvision.scorers import Progress, make_scorer
from medvision.scores import CERTAIN, Certainty, NetworkGrid, Scores, Weakest, drop_stray_pieces, keep_main_body
from medvision.volumes.files import Volume, read_volume
from medvision.volumes.geometry import Grid, ras_axes, to_ras
from medvision.volumes.hounsfield import looks_like_hounsfield
from medvision.volumes.intensities import channels_to_network
from medvision.volumes.monai_spacing import monai_grid, why_not_monais
from medvision.volumes.writing import write_stack, write_volume
from shared_backbones import optimize_for_inference, weights
from shared_backbones.card import Card
from shared_backbones.devices import choose_device, choose_precision, choose_threads
from shared_backbones.engines import TORCH, Accelerated, Described, check_engine, describe, identity_of
from shared_backbones.errors import InputError
from shared_backbones.memory import expect
from shared_backbones.winners import winners

if TYPE_CHECKING:
    from medvision.findings.tables import Cell, Form

_BRIDGE_MM = 1.5
"""Half the width of the widest bridge by which labels outside the brain hang on it: a nerve, a vessel, a muscle."""
_MULTIPLE = 32  # of pixels: sides of slices that a network takes
_MOST_VOXELS = 2**27  # at the network's spacing; a cube of 768 mm at 1.5 mm


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Python's MemoryError in place of the RuntimeError that torch's CPU allocator raises."""
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise


@dataclass
class Segmentation:
    """Labels of one volume, and what is needed to judge and to repeat them.

    Attributes:
        labels: `(X, Y, Z)` uint8 on the input's own grid.
        volume: the input.
        card: card of the model.
        confidence: mean score of the winning class over each class's voxels, in [0, 1]; None where it has none.
        settings: what decides the result beside model and input.
        device: where the network ran.
        precision: `float32` or `bfloat16`.
        timings_s: seconds by step.
        warnings: what a user should know.
        model_sha256: digest of the weights.
        fallbacks: warnings that something ran in another way than was preferred.
        weakest_slices: slice of each class along each RAS axis, counted upwards, in which its winning scores are lowest
            on average, and that mean; see `medvision.scores`.
        sides_ml: volumes on the left and on the right of each structure that lies on both sides, in mL, where the
            model tells them apart.
        intracranial_ml: volume inside the skull, in mL, with the fluid around the brain that the label map leaves out;
            None where the model does not tell it, or the scan cuts through it.
        outside_share: share of the labelled voxels that were taken off since they do not hang together with the
            brain; None where the model is none of the brain.
        is_cut: whether the scan ends inside the skull; None where the model does not tell that.
        certainty: how high the winning scores are; None where they were not kept.
        engine: what a side-car says of how the network ran, beyond device and precision.
    """

    labels: np.ndarray
    volume: Volume
    card: Card
    confidence: dict[int, float | None]
    settings: dict[str, Setting]
    device: str
    precision: str
    timings_s: dict[str, float]
    warnings: list[str]
    model_sha256: str
    fallbacks: list[str] = field(default_factory=list)
    weakest_slices: Weakest = field(default_factory=dict)
    sides_ml: dict[int, tuple[float, float]] = field(default_factory=dict)
    intracranial_ml: float | None = None
    outside_share: float | None = None
    is_cut: bool | None = None
    certainty: Certainty | None = None
    engine: Described = field(default_factory=Described)
    _scores: Scores | None = field(default=None, repr=False)

    def save(self, path: str | Path) -> None:
        """Write the label map as NIfTI on the input's grid.

        Raises:
            InputError: the file cannot be written.
        """
        write_volume(path, self.labels, self.volume.grid)

    def volumes(self, form: "Form" = "wide") -> "list[dict[str, Cell]]":
        """Volumes, confidences and flags as rows of a table, as `medvision segment` writes them.

        Args:
            form: `wide`, one row with a column for each structure, or `long`, one row for each structure; see
                `medvision.findings.tables`.
        """
        from medvision.findings.sidecar import measure
        from medvision.findings.tables import volume_rows

        structures, flags = measure(self)
        case = self.volume.case_id
        return volume_rows(
            {"case": case, "structures": structures, "flags": flags, "intracranial_ml": self.intracranial_ml}, form
        )

    def save_probabilities(self, path: str | Path) -> None:
        """Write class probabilities as `(X, Y, Z, K)` NIfTI, uint8 with slope 1/255, one class at a time.

        Raises:
            ValueError: the volume was segmented without `keep_scores=True`.
            InputError: the file cannot be written.
        """
        if self._scores is None:
            raise ValueError("probabilities were not kept; segment with keep_scores=True")
        volumes = self._scores.probabilities()
        write_stack(path, volumes, len(self.card["classes"]), np.uint8, self.volume.grid, slope=1 / 255)


class Segmenter:
    """A segmentation model that is loaded once and serves many volumes.

    Args:
        model: bundled name or folder of a trained model.
        device: `auto` (a GPU if one is there and works, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads of this process; by default torch's choice, within its quota of CPUs.
        views: planes that a network of slices runs over, of `axial`, `coronal`, `sagittal`; by default the model's own.
        fast: one view and a coarser spacing; for a 3-D network, windows that overlap less.
        precision: `auto`, `float32` or `bfloat16`. `auto` takes bfloat16 where the hardware computes in it and the
            model's card says that at least 99.9 % of voxels keep their label.
        engine: `torch`, or `openvino` for the CPU, which is faster and takes more memory; see
            `shared_backbones.engines`.
        detail: `structures`, or `full` for each part of them with its side, where the model tells these apart.

    Raises:
        InputError: no such model, device, view, precision, engine or detail, or a model that does not segment volumes.
    """

    def __init__(
        self,
        model: str | Path = "brain-structures",
        *,
        device: str = "auto",
        threads: int | None = None,
        views: Sequence[str] | None = None,
        fast: bool = False,
        precision: str = "auto",
        engine: str = "torch",
        detail: str = "structures",
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, expected 1 or more")
        choose_threads(threads)
        chosen, self.warnings = choose_device(device)
        check_engine(engine, chosen)
        trained = weights.load(find_model(model))
        self.model_sha256 = trained.sha256
        self.contract = InputContract.from_card(trained.card, str(model))
        self.channels = Channels.of(self.contract, detail, str(model))
        self.card = _card_of(trained.card, self.channels)
        self.scorer = make_scorer(self.contract, self.channels, None if views is None else tuple(views), fast)
        if views is not None and self.contract.patch is not None:
            self.warnings.append(f"model {model} has a 3-D network: the views do not matter")
        self.fast = fast
        network = optimize_for_inference(trained.module)
        self.network = network.to(memory_format=self.scorer.memory_format)  # pyright: ignore[reportCallIssue] - real, unlisted
        try:
            self.scorer.check(self.network, in_rows=engine == TORCH)
        except InputError as error:
            raise InputError(f"model {model}: {error}") from None
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"model {model}: its network does not take what its card names ({reason})") from None
        self._requested = device, precision
        self._accelerated: Accelerated | None = None
        self._place_on(chosen)
        if engine != TORCH:
            self._accelerated = Accelerated(
                self.network,
                identity_of(trained.card, trained.sha256),
                precision=self._precision,
                warnings=self.warnings,
                is_asked_for=precision == self._precision,
                multiple_of=getattr(self.network, "stride", _MULTIPLE),
            )

    def _place_on(self, device: torch.device) -> None:
        self.device = device
        self._precision = choose_precision(self._requested[1], device, self.contract.bfloat16_agreement)
        self.network.to(device)

    @property
    def precision(self) -> str:
        """Number format of the network's arithmetic: `float32` or `bfloat16`."""
        return self._precision if self._accelerated is None else self._accelerated.precision

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of a batch on the model's device, as the network gives them."""
        if self._accelerated is not None:
            return self._accelerated(images)[0]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self.network(images)

    @torch.inference_mode()
    def in_rows(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First row and logits of the next rows of a batch of volumes, as the network gives them."""
        rows = getattr(self.network, "in_rows", None)
        if rows is None:
            yield 0, self(images)
            return
        if self._accelerated is not None:
            yield 0, self._whole(images, int(getattr(self.network, "stride", 1)))
            return
        pieces = rows(images)
        while True:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _whole(self, images: Tensor, stride: int) -> Tensor:
        """Logits of volumes whose border is repeated as the network would do by itself, which makes sizes alike."""
        sides = images.shape[2:]
        padding = [amount for side in reversed(sides) for amount in (0, -side % stride)]
        logits = self(F.pad(images, padding, mode="replicate") if any(padding) else images)
        return logits[(..., *(slice(side) for side in sides))]

    @property
    def settings(self) -> dict[str, Setting]:
        """What decides a result beside the model and the input."""
        spacings = [step and step * self.scorer.coarsening for step in self.contract.spacing_mm]
        return {
            **self.scorer.settings,
            "spacing_mm": spacings[0] if len(set(spacings)) == 1 else spacings,
            "fast": self.fast,
            "precision": self.precision,
            **({"engine": "openvino"} if self._accelerated is not None else {}),
            **({"detail": self.channels.detail.value} if self.contract.parts else {}),
        }

    @_memory_errors()
    def segment(
        self,
        scan: str | Path | Volume,
        *,
        keep_scores: bool = False,
        any_modality: bool = False,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Label every voxel of a scan.

        Args:
            scan: path of a NIfTI or MGH file, or a volume. Where the model takes several channels, they are the volumes
                of a 4-D file, or those of `medvision.volumes.channels.read_channels`.
            keep_scores: keep what `Segmentation.save_probabilities` needs.
            any_modality: take a scan of another modality than the model expects.
            progress: called with slices or windows done, and how many there are in all.

        Raises:
            InputError: the scan cannot be used.
            MemoryError: there is not enough for it.
        """
        clock = _Clock()
        volume = scan if isinstance(scan, Volume) else read_volume(scan, channels=self.contract.channels)
        self._check_channels(volume)
        clock.lap("read")
        remarks = self._check_modality(volume, any_modality)
        image, grid, notes = self._prepare(volume)
        clock.lap("prepare")
        values = self._score(image, progress)
        del image
        clock.lap("network")
        right = values[-1] if self.channels.knows_sides else None
        values = values[: len(self.channels.scored)]
        outside_share, intracranial_ml, is_cut = self._clean(values, grid)
        scores = Scores(values, self.scorer.summands, grid, self.channels.scored, right)
        labelled = scores.labels()
        clock.lap("labels")
        if self.contract.resampling == "monai" and (reason := why_not_monais(ras_axes(volume.grid))):
            remarks.append(f"{reason}: the labels may differ from MONAI's own")
        voxel_ml = abs(float(np.linalg.det(volume.grid.affine[:3, :3]))) / 1000
        return Segmentation(
            labels=labelled.labels,
            volume=volume,
            card=self.card,
            confidence=labelled.confidence,
            settings=self.settings,
            device=str(self.device),
            precision=self.precision,
            timings_s=clock.laps,
            warnings=[*remarks, *volume.warnings, *notes, *self.warnings],
            model_sha256=self.model_sha256,
            fallbacks=list(self.warnings),
            weakest_slices=scores.weakest_slices(),
            sides_ml={k: (left * voxel_ml, right * voxel_ml) for k, (left, right) in labelled.sides.items()},
            intracranial_ml=intracranial_ml,
            outside_share=outside_share,
            is_cut=is_cut,
            certainty=Certainty.of(values, self.scorer.summands, grid),
            engine=describe(self.network, self._accelerated),
            _scores=scores if keep_scores else None,
        )

    def check_grid(self, grid: Grid, label: str) -> None:
        """Refuse a grid that covers too much at the model's spacing, or takes more memory than the budget.

        Raises:
            InputError: it does; `label` says of what.
        """
        shape, spacing, _ = to_ras(np.broadcast_to(np.float32(0), grid.shape), grid)
        extent = [n * step for n, step in zip(shape.shape, spacing, strict=True)]
        target = self._target(spacing)
        if math.prod(extent) > _MOST_VOXELS * math.prod(target):
            raise InputError(
                f"{label}: covers {' x '.join(f'{side:.0f}' for side in extent)} mm, too much at the model's "
                f"{' x '.join(f'{step:.3g}' for step in target)} mm; check the voxel size in its header, or cut the "
                "scan to the head"
            )
        coarse = [max(1, round(length / step)) for length, step in zip(extent, target, strict=True)]
        inputs = 4 * self.contract.channel_count * (math.prod(grid.shape) + 2 * math.prod(coarse))
        needed = inputs + self.scorer.memory(coarse, self.device.type) + 2 * math.prod(grid.shape)
        expect(needed, label, "segmenting it")

    def _target(self, spacing: Sequence[float]) -> tuple[float, ...]:
        """Voxel size of the network's grid, for a scan's."""
        return tuple(step * self.scorer.coarsening for step in self.contract.spacing_for(spacing))

    def _check_channels(self, volume: Volume) -> None:
        """Refuse a volume that has another number of channels than the model takes."""
        count, channels = len(volume.channels), self.contract.channels
        if count != self.contract.channel_count:
            expected = f"{len(channels)} ({', '.join(channels)})" if channels else "1"
            raise InputError(
                f"{volume.case_id}: has {count} channel{'s' * (count > 1)}, the model takes {expected}; give a scan "
                "that has them, or choose another model"
            )

    def _check_modality(self, volume: Volume, any_modality: bool) -> list[str]:
        """Refuse a scan whose header says another modality than the model expects, or warn where its values look so."""
        expected = self.card["input"].get("modality")
        conflict = modality_conflict(expected, volume.modality)
        if conflict and not any_modality:
            raise InputError(f"{volume.case_id}: {conflict}; choose another scan or model, or use --any-modality")
        if conflict:
            return [f"{conflict}: the labels cannot be relied on"]
        is_ct = volume.modality is None and modality_conflict(expected, "CT") and looks_like_hounsfield(volume.data)
        if is_ct and not any_modality:
            return [f"its values look like Hounsfield units (air near -1000), the model expects {expected}"]
        return []

    def _prepare(self, volume: Volume) -> tuple[Tensor, NetworkGrid, list[str]]:
        """Bring a volume to the network's grid and cut it to its content; and what to know about its intensities."""
        self.check_grid(volume.grid, volume.case_id)
        ras, spacing, from_ras = to_ras(volume.data, volume.grid)
        channels = [to_ras(channel, volume.grid)[0] for channel in volume.channels]
        target = self._target(spacing)
        sizes, starts = None, None
        if self.contract.resampling == "monai":
            sizes, starts = monai_grid(ras_axes(volume.grid), ras.shape, target)
        image, notes = channels_to_network(channels, spacing, target, self.contract.normalisations, sizes, starts)
        box = _content_box(image) if self.contract.crops else (slice(None), slice(None), slice(None))
        grid = NetworkGrid(box, tuple(image.shape[1:]), ras.shape, spacing, target, from_ras, starts)
        return image[:, *box].clone(), grid, notes

    def _score(self, image: Tensor, progress: Progress | None) -> Tensor:
        """Class scores `(K, x, y, z)` of the box; on the CPU if a GPU runs out of memory."""
        try:
            return self.scorer.score(image, self, progress)
        except torch.OutOfMemoryError as error:
            if self._requested[0] != "auto":
                raise InputError(f"device {self.device}: out of memory; free some, or run with --device cpu") from error
        # kept: the next volume's result says so, too
        self.warnings.append(f"{self.device} ran out of memory; the CPU was used")
        self._place_on(torch.device("cpu"))
        return self.scorer.score(image, self, progress)

    def _clean(self, values: Tensor, grid: NetworkGrid) -> tuple[float | None, float | None, bool | None]:
        """Take off, in place, what does not belong to the rest.

        Returns:
            Of a model of the brain, the share of labels outside it, the intracranial volume in mL or None where the
            scan cuts it, and whether it does.
        """
        contract, certain, spacing = self.contract, CERTAIN * self.scorer.summands, grid.spacing_mm
        outside = volume_ml = is_cut = None
        if contract.intracranial:
            outside = keep_main_body(values, certain, _BRIDGE_MM / max(spacing), contract.smallest_piece)
            inside = winners(values)[1] > 0
            is_cut = grid.cuts(inside)
            if not is_cut:
                volume_ml = int(inside.sum()) * math.prod(spacing) / 1000
        if contract.smallest_piece:
            attached = self.channels.of_structures(contract.attached)
            loose = [k for k, channel in enumerate(self.channels.scored) if channel.left in attached]
            drop_stray_pieces(values, certain, loose, contract.attached_mm / max(spacing), contract.smallest_piece)
        return outside, volume_ml, is_cut


def _card_of(card: Card, channels: Channels) -> Card:
    """A card whose classes are those of the label maps."""
    if channels.detail is Detail.structures:
        return card
    attached = channels.of_structures(card["input"].get("attached", ()))
    return {**card, "classes": channels.classes, "input": {**card["input"], "attached": list(attached)}}


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


def _content_box(image: Tensor, margin: int = 4) -> tuple[slice, slice, slice]:
    """Box around what is brighter in any channel than a twentieth of the range, widened by `margin` voxels."""
    # single bright voxels are noise: a plane counts where a hundredth of the brightest plane's share is reached
    mask = (image > 0.05).any(0)
    box = []
    for axis in range(3):
        filled = mask.sum(dim=[d for d in range(3) if d != axis])
        rows = torch.nonzero(filled > 0.01 * filled.max())[:, 0]
        first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, mask.shape[axis] - 1)
        box.append(slice(max(0, first - margin), min(mask.shape[axis], last + margin + 1)))
    return box[0], box[1], box[2]
