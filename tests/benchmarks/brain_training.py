"""How a network for the brain learns from drawn heads, in a loop that can be killed at any time.

The sides of a part are one class, and one further logit says which side it is. Thirteen classes fewer make the step
cheaper at full resolution, both sides of a part share what is learnt of it, and the two halves of a structure at the
midline do not compete for its confidence.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medvision.datasets.brain_labels import LEFT_TO_RIGHT, PARTS
from medvision.datasets.patches import patches_of
from medvision.datasets.synthetic import LabelMapSynthesizer, sent
from pipelines.runtime.memory import keep_freed_memory
from pipelines.training.checkpoints import SafetensorsCheckpoints
from shared_backbones.devices import choose_precision
from shared_backbones.files import replacing
from shared_backbones.networks.skip_unet import SkipUnet

OUTPUTS = len(PARTS) + 2
"""Background, the parts without their side, and one logit for the right side."""
CONTEXT = 2
"""Neighbouring slices on each side of the one that a network of slices labels."""
SLICE, PATCH = 128, 96
VOLUMES_PER_ROUND = 4
BORDER_SHARE = 1 / 3
WARMUP_STEPS = 30
COARSE = 0.25
"""Share of the training at twice the spacing: a step costs an eighth there, and shows where everything lies."""
COARSE_SECONDS = 1500.0
"""At most that long: anatomy at large is learnt by then."""
DESCENT = 0.7
"""Share of the training after which the rate falls and batch norms keep their statistics."""
AVERAGED_STEPS = 100


def is_3d(network: nn.Module) -> bool:
    """Whether a network takes volumes."""
    return isinstance(network, SkipUnet) and network.arguments["dimensions"] == 3


class Parts:
    """FreeSurfer ids as what a network learns: classes without a side, and the side."""

    def __init__(self, device: torch.device) -> None:
        self.ids = [0, *PARTS]
        side = {right: left for left, right in LEFT_TO_RIGHT.items()}
        known = range(256)
        self.class_of = torch.tensor(
            [self.ids.index(side.get(i, i)) if side.get(i, i) in self.ids else 0 for i in known], device=device
        )
        # 1 right, 0 left, -1 neither
        sides = [1.0 if i in side else 0.0 if i in LEFT_TO_RIGHT else -1.0 for i in known]
        self.side_of = torch.tensor(sides, device=device)
        self.right = torch.tensor([LEFT_TO_RIGHT.get(i, i) for i in self.ids], device=device)
        self.left = torch.tensor(self.ids, device=device)
        self.structure_of = torch.tensor([PARTS.get(side.get(i, i), 0) for i in known], device=device)

    def decode(self, scores: Tensor) -> Tensor:
        """FreeSurfer ids `(...)` of scores `(OUTPUTS, ...)`: probabilities or logits, the side's the last."""
        best = scores[:-1].argmax(0)
        return torch.where(scores[-1] > 0, self.right[best], self.left[best])


class PartsLoss(nn.Module):
    """Cross-entropy with weights, Dice of the classes that are there, and binary cross-entropy of the side.

    Args:
        parts: tables of the classes.
        synthesizer: holds the maps whose classes are counted.
    """

    def __init__(self, parts: Parts, synthesizer: LabelMapSynthesizer) -> None:
        super().__init__()
        self.parts = parts
        counts = sum(
            torch.bincount(parts.class_of[synthesizer.targets[head.int()].long()].flatten(), minlength=OUTPUTS - 1)
            for head in synthesizer.heads
        )
        self.frequency = torch.as_tensor(counts, dtype=torch.float32, device=parts.left.device)
        self.frequency = self.frequency / self.frequency.sum()

    def forward(self, logits: Tensor, ids: Tensor, evenness: float) -> Tensor:
        """Mean loss of logits `(B, OUTPUTS, ...)` and ids `(B, ...)`.

        Weights are the classes' frequencies to the power of minus `evenness`: at 0, voxels count alike.
        """
        ids = ids.long()
        target, side = self.parts.class_of[ids], self.parts.side_of[ids]
        log_probabilities = logits[:, :-1].log_softmax(1)
        weight = self.frequency.clamp(min=1e-6) ** -evenness
        entropy = F.nll_loss(log_probabilities, target, weight)
        right = logits[:, -1].masked_fill(side < 0, 0.0)
        lateral = F.binary_cross_entropy_with_logits(right, side.clamp(min=0), reduction="none") * (side >= 0)
        return entropy + 0.5 * self._dice(log_probabilities, target) + 0.25 * lateral.sum() / (side >= 0).sum().clamp(1)

    def _dice(self, log_probabilities: Tensor, target: Tensor) -> Tensor:
        """One minus the mean soft Dice of the parts that have at least 100 voxels."""
        count = log_probabilities.shape[1]
        probabilities = log_probabilities.exp()
        own = probabilities.gather(1, target[:, None]).flatten()
        zeros = own.new_zeros(count)
        both = zeros.index_add(0, target.flatten(), own)
        there = zeros.index_add(0, target.flatten(), torch.ones_like(own))
        predicted = probabilities.transpose(0, 1).flatten(1).sum(1)
        dice = 2 * both / (predicted + there)
        judged = (there >= 100).float()
        judged[0] = 0
        return 1 - (dice * judged).sum() / judged.sum().clamp(1)


def batches(
    synthesizer: LabelMapSynthesizer, number: int, *, volumes: bool, coarse: bool, size: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of round `number`: patches of a few volumes, mixed.

    Args:
        synthesizer: draws the volumes.
        number: of the round, which decides all that is random.
        volumes: whether patches are 96 voxels deep, or slices of 128 x 128 with their neighbours as channels.
        coarse: at twice the spacing, with half the voxels along each axis of a patch, and twice the patches.
        size: volumes of a batch, or a sixteenth of its slices.
        seed: of the training.

    Yields:
        images `(B, 1, 96, 96, 96)` or `(B, 5, 128, 128)`, and ids `(B, 96, 96, 96)` or `(B, 128, 128)`.
    """
    generator = torch.Generator().manual_seed((seed << 32) + number)
    finer = 1
    if coarse:
        synthesizer, finer = synthesizer.at_spacing(2 * synthesizer.settings.spacing_mm), 2
    drawn = []
    for _ in range(VOLUMES_PER_ROUND):
        image, ids = synthesizer(generator)
        if volumes:
            boxes, count = [(PATCH // finer,) * 3], 4 * finer
        else:
            side, depth = SLICE // finer, 2 * CONTEXT + 1
            boxes, count = [(depth, side, side), (side, depth, side), (side, side, depth)], 42 * finer
        for axis, box in enumerate(boxes):
            patches, labels = patches_of(
                image, ids, size=box, count=count, border_share=BORDER_SHARE, generator=generator
            )
            if not volumes:
                patches, labels = patches.movedim(axis + 1, 1), labels.select(axis + 1, CONTEXT)
            drawn.append((patches, labels))
    images, targets = (torch.cat(tensors) for tensors in zip(*drawn, strict=True))
    if volumes:
        images = images[:, None]
    order = sent(torch.randperm(len(images), generator=generator), images.device)
    for rows in order.split(size * finer * (1 if volumes else 16)):
        yield images[rows], targets[rows]


@dataclass
class Clock:
    """Seconds of training so far; CPU seconds of this process, or seconds where a GPU does the work."""

    seconds: float
    now: Callable[[], float]

    def __post_init__(self) -> None:
        self.started = self.now()

    def lap(self) -> float:
        """Add the time since the last lap."""
        now = self.now()
        self.seconds, self.started = self.seconds + now - self.started, now
        return self.seconds

    def skip(self) -> None:
        """Leave out the time since the last lap."""
        self.started = self.now()


class Training:
    """One network's training, exactly as far as its checkpoint says.

    Args:
        network: what learns.
        folder: gets `last.safetensors`, `weights.safetensors` and `history.jsonl`.
        seconds: length of the schedule.
        device: of the network.
        seed: of everything random.
        learning_rate: before its descent.
        batch_size: volumes of a step.
        start: weights to start from; anatomy at large is then known, and no part of the schedule is coarse.
    """

    def __init__(
        self,
        network: nn.Module,
        folder: Path,
        seconds: float,
        device: torch.device,
        *,
        seed: int,
        learning_rate: float,
        batch_size: int = 1,
        start: Path | None = None,
    ) -> None:
        if start is not None:
            network.load_state_dict({name: value.float() for name, value in load_file(start).items()})
        self.network, self.folder, self.length, self.device = network.to(device), folder, seconds, device
        self.coarse_seconds = min(COARSE * seconds, COARSE_SECONDS) if start is None else 0.0
        self.averaged = {name: value.clone() for name, value in self.network.state_dict().items()}
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99))
        self.rounds = self.steps = 0
        # on a CPU that computes in it, a step costs 0.65 of float32's
        self.bfloat16 = choose_precision("auto", device, agreement=1.0) == "bfloat16"
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.seed, self.files = seed, SafetensorsCheckpoints(folder.name)
        self.clock = Clock(0.0, time.monotonic if device.type == "cuda" else time.process_time)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "last.safetensors").exists():
            self._load()

    @property
    def progress(self) -> float:
        """Share of the schedule that lies behind."""
        return min(1.0, self.clock.seconds / self.length)

    def run(self, synthesizer: LabelMapSynthesizer, loss: PartsLoss) -> None:
        """Train to the end of the schedule; a checkpoint after every round."""
        keep_freed_memory()
        self.clock.skip()
        while self.progress < 1:
            losses = []
            kind = {"volumes": is_3d(self.network), "coarse": self.clock.seconds < self.coarse_seconds}
            for images, ids in batches(synthesizer, self.rounds, seed=self.seed, size=self.batch_size, **kind):
                losses.append(self._step(images, ids, loss))
                self.clock.lap()
                if self.progress >= 1:
                    break
            self.rounds += 1
            mean = float(torch.stack(losses).mean())
            self.clock.lap()
            self._save()
            self._note({"round": self.rounds, "steps": self.steps, "seconds": self.clock.seconds, "loss": mean})

    def _step(self, images: Tensor, ids: Tensor, loss: PartsLoss) -> Tensor:
        """One step of the optimiser."""
        descent = max(0.0, self.progress - DESCENT) / (1 - DESCENT)
        rate = min(1.0, (self.steps + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * descent))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * max(rate, 1e-3)
        self.network.train()
        if descent > 0:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                    module.eval()
        evenness = 0.5 - 0.35 * min(1.0, max(0.0, 2 * self.progress - 1))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            logits = self.network(images)
        value = loss(logits.float(), ids, evenness)
        value.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self._average()
        return value.detach()

    @torch.no_grad()
    def _average(self) -> None:
        """Moving average of weights and batch-norm statistics over the last steps."""
        share = max(1 / self.steps, 1 / AVERAGED_STEPS)
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.averaged[name].lerp_(value, share)
            else:
                self.averaged[name].copy_(value)

    def _save(self) -> None:
        state = {
            "rounds": self.rounds,
            "steps": self.steps,
            "global_step": self.steps,
            "seconds": self.clock.seconds,
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
        }
        self.files.save_checkpoint(state, self.folder / "last.safetensors")
        if self.progress >= 1:
            with replacing(self.folder / "weights.safetensors") as temporary:
                save_file({name: value.cpu().contiguous() for name, value in self.averaged.items()}, temporary)

    def _load(self) -> None:
        state = self.files.load_checkpoint(self.folder / "last.safetensors")
        self.rounds, self.steps = state["rounds"], state["steps"]
        self.clock.seconds = state["seconds"]
        self.network.load_state_dict(state["network"])
        self.averaged = {name: value.to(self.device) for name, value in state["averaged"].items()}
        self.optimizer.load_state_dict(state["optimizer"])

    def trained(self) -> nn.Module:
        """The network with its averaged weights."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.averaged)
        return network.eval()

    def _note(self, figures: dict[str, float]) -> None:
        with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: round(value, 4) for name, value in figures.items()}) + "\n")
