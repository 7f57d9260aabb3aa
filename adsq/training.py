"""The trainer: epochs, batches, random numbers, metrics. What a step does: `alternating` and `joint`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from adsq import distributed
from adsq.alternating import Alternating
from adsq.augmentation import Augmentation
from adsq.data import ImageDataset, batches
from adsq.distributed import Share
from adsq.joint import Joint
from adsq.monitoring import TermLog, code_statistics, collapse_warning
from adsq.networks import ADSQ, ImgNet
from adsq.posterior import PosteriorConfig
from adsq.schedule import Objective, TrainingConfig, make_objective


class Trainer:
    """Trains an ADSQ model on some images of a data set.

    Where `torch.distributed` has a process group of several ranks, `fit` is collective: all ranks call it with the same
    arguments, each reads and learns from its share of every batch, and all end with the same weights, banks, codes and
    history, those of one process up to rounding (docs/method.md, "Several processes"). The backend must serve `device`.

    Args:
        model: The model; it is moved to `device` and trained in place.
        dataset: The images and their labels.
        indices: int64 [n], the training images.
        objective: Terms and weights: a `PosteriorConfig` for "adsq", which is the default, an `ObjectiveConfig` for
            "adsq-likelihood", or one of these names.
        config: The schedule, by default `TrainingConfig.default` for the objective.
        augmentation: By default `Augmentation.default` for the data set.
        device: Where to train.

    Attributes:
        epoch: Epochs done.
        history: One dict of metrics an epoch.
        codes: The shared codes B of the training images, float32 [n, K] of +1 and -1.
        banks: Relaxed codes U and V of the training images, as last computed, float32 [n, K].
        steps: What one step does, and its optimizers.
    """

    def __init__(
        self,
        model: ADSQ,
        dataset: ImageDataset,
        indices: Tensor,
        objective: Objective | str | None = None,
        config: TrainingConfig | None = None,
        augmentation: Augmentation | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if dataset.image_shape != model.config.image_shape or dataset.num_classes != model.config.num_classes:
            raise ValueError(
                f"dataset: expected images of shape {model.config.image_shape} and {model.config.num_classes} classes "
                f"as in model, got {dataset.image_shape} and {dataset.num_classes}"
            )
        if len(indices) < 2:
            raise ValueError(f"indices: expected at least 2 training images, got {len(indices)}")
        self.model = model.to(device).train()
        self.dataset, self.indices, self.device = dataset, indices, torch.device(device)
        self.objective = make_objective(objective) if isinstance(objective, str) else objective or PosteriorConfig()
        self.config = config or TrainingConfig.default(self.objective.name)
        self.augmentation = augmentation or Augmentation.default(dataset.name, dataset.image_shape)
        self.dtype = self._dtype()
        self._steps_a_read = 1 if self.device.type == "cpu" else 20
        self.labels = dataset.labels[indices].to(self.device)
        distinct, self.row_of, counts = torch.unique(self.labels, dim=0, return_inverse=True, return_counts=True)
        self.distinct = distinct, counts.float()
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        signs = torch.randint(0, 2, (2, len(indices), model.config.num_bits), generator=self.generator("banks"))
        self.banks = [bank.to(self.device) for bank in signs.float() * 2 - 1]
        self.codes = self.banks[0].clone()
        self.nets: list[ImgNet] = [model.img_net_f, model.img_net_g][: self.objective.image_nets]
        # The same steps in one pass over the weights, where PyTorch has it: several percent of the time of a small CNN.
        self.fused = True if self.device.type in ("cpu", "cuda") else None
        self.steps_per_epoch = len(self._batches_of(torch.arange(len(indices))))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.steps: Joint | Alternating
        if isinstance(self.objective, PosteriorConfig):
            self.steps = Joint(self, self.objective)
        else:
            self.steps = Alternating(self, self.objective)

    def fit(
        self,
        after_step: Callable[[int, dict[str, float]], None] | None = None,
        after_epoch: Callable[[Trainer], None] | None = None,
    ) -> None:
        """Train until `config.epochs` epochs are done, from wherever the trainer stands.

        Args:
            after_step: Called with the number of steps done in all and the terms as last read.
            after_epoch: Called when an epoch is complete, the time to save.

        Raises:
            NonFiniteLossError: A term became NaN or infinite.
            ValueError: The processes' trainers differ in what must be the same.
        """
        self._join()
        if self.epoch == 0:
            if not self.model.pixel_statistics_known:
                self._measure_pixels()
            with self._seeded("pretraining"):
                self.steps.start()
        while self.epoch < self.config.epochs:
            with self._seeded("epoch", self.epoch):
                self._train_epoch(after_step)
            if after_epoch is not None:
                after_epoch(self)

    def _join(self) -> None:
        """Make sure that all processes are about to do the same, from the same weights."""
        if distributed.world_size() == 1:
            return
        facts: dict[str, Any] = {"objective": self.objective.name, "epoch": self.epoch}
        for settings in (self.objective, self.config, self.augmentation, self.model.config):
            facts |= asdict(settings)
        for name, values in {"indices": self.indices, "labels": self.labels}.items():
            content = values.cpu().contiguous().numpy().data
            facts[name] = f"{list(values.shape)} with SHA-256 {hashlib.sha256(content).hexdigest()[:16]}"
        distributed.check_same(distributed.gather_objects(facts))
        distributed.synchronize_batch_norm(self.model, self.device)
        distributed.copy_from_first(
            [*self.model.state_dict().values(), *self.steps.parameters.values(), self.codes, *self.banks]
        )

    def _measure_pixels(self) -> None:
        """Set the model's pixel mean and deviation from up to 5,000 training images."""
        some = self.indices[torch.randperm(len(self.indices), generator=self.generator("pixels"))[:5000]]
        some = Share.of(len(some)).own_rows(some)
        sums = torch.zeros((3, self.dataset.image_shape[0]), dtype=torch.float64)
        for images in batches(self.dataset, some, 256, self.config.num_workers):
            pixels = images.double() / 255
            moments = (torch.ones_like(pixels), pixels, pixels.square())
            sums += torch.stack([moment.sum(dim=(0, 2, 3)) for moment in moments])
        sums = distributed.total(sums.to(self.device)).cpu()
        mean = sums[1] / sums[0]
        deviation = (sums[2] / sums[0] - mean.square()).clamp(min=0).sqrt()
        self.model.pixel_mean.copy_(mean)
        self.model.pixel_std.copy_(deviation.clamp(min=1 / 255))  # a blank channel has none

    def _train_epoch(self, after_step: Callable[[int, dict[str, float]], None] | None) -> None:
        started = time.perf_counter()
        generator = self.generator("epoch", self.epoch)
        self.steps.begin_epoch()
        order = torch.randperm(len(self.indices), generator=generator)
        steps = self._batches_of(order)
        done = self.epoch * self.steps_per_epoch
        log = self.new_log(done)
        for step, (positions, batch) in enumerate(zip(steps, self._own_images(steps), strict=True)):
            log.add(self.steps.step(positions.to(self.device), batch.to(self.device), generator))
            if after_step is not None:
                after_step(done + step + 1, log.latest)
        self.steps.end_epoch(log, generator)
        if len(self.nets) == 1:  # every kind of code is F's then
            self.model.img_net_g.load_state_dict(self.model.img_net_f.state_dict())
        means = log.means()
        self.epoch += 1
        seconds = time.perf_counter() - started
        self.history.append(
            {
                "epoch": self.epoch,
                "step": self.epoch * self.steps_per_epoch,
                "lr": self.steps.schedulers[0].get_last_lr()[0],
                "images_per_second": sum(map(len, steps)) / seconds,
                "seconds": seconds,
                "loss": sum(means.values()),
                **means,
                **self.code_statistics(),
            }
        )

    def _own_images(self, steps: list[Tensor]) -> Iterator[Tensor]:
        """Read this process's share of each batch."""
        own = [Share.of(len(step)).own_rows(step) for step in steps]
        size = max(1, len(own[0]))  # that of all but the last, which is no larger
        images = batches(self.dataset, self.indices[torch.cat(own)], size, self.config.num_workers)
        nothing = torch.empty((0, *self.dataset.image_shape), dtype=torch.uint8)
        return (next(images) if len(rows) else nothing for rows in own)

    def one_cycle(
        self, optimizer: torch.optim.Optimizer, peaks: float | list[float]
    ) -> torch.optim.lr_scheduler.OneCycleLR:
        """Return the one-cycle schedule of the whole training, with peaks for all groups of weights or for each."""
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, self.config.epochs * self.steps_per_epoch)

    def new_log(self, steps_done: int) -> TermLog:
        """Return a log of terms that is read as often as the device allows."""
        return TermLog(steps_done, self._steps_a_read)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the ImgNets compute."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def descend(
        self, terms: dict[str, Tensor], optimizer: torch.optim.Optimizer, alike: bool = False
    ) -> dict[str, Tensor]:
        """Take a step down the sum of the terms.

        Args:
            terms: Scalars: this process's parts, which add up to the terms over all processes.
            optimizer: What steps.
            alike: The terms are whole, and the same on every process.

        Returns:
            The terms, over all processes, without gradient.
        """
        optimizer.zero_grad()
        if not terms:
            return {}
        parts = torch.stack(list(terms.values()))
        self.scaler.scale(parts.sum()).backward()
        # Before the scaler looks for infinite gradients: then all processes find the same.
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        values = distributed.total_gradients(weights, parts.detach(), alike)
        self.scaler.step(optimizer)
        self.scaler.update()
        return dict(zip(terms, values.unbind(), strict=True))

    def label_rows(self, labels: Tensor) -> Tensor:
        """Return labels as rows of 0 and 1, float [n, C]."""
        if labels.dim() == 1:
            return nn.functional.one_hot(labels, self.model.config.num_classes).float()
        return labels.float()

    def _batches_of(self, order: Tensor) -> list[Tensor]:
        """Cut into batches; a last one of a single image is left out, since batch norm has no variance of one."""
        steps = list(order.split(self.config.batch_size))
        return steps[:-1] if len(steps[-1]) == 1 and len(steps) > 1 else steps

    def code_statistics(self) -> dict[str, float]:
        """Return `monitoring.code_statistics` of the shared codes and the banks."""
        return code_statistics(self.codes, self.banks[: len(self.nets)])

    def collapse_warning(self) -> str | None:
        """Say in a line what is wrong when codes collapse, None while they are healthy."""
        return collapse_warning(self.code_statistics(), len(self.distinct[0]), self.model.config.num_bits)

    def _dtype(self) -> torch.dtype:
        if self.device.type == "cpu":
            return torch.float32
        if self.config.precision == "auto":
            bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if bf16 else torch.float32
        return getattr(torch, self.config.precision)

    def generator(self, *key: str | int) -> torch.Generator:
        """Every epoch draws from its own generator, so that resuming at an epoch needs no saved random state."""
        digest = hashlib.sha256(repr((self.config.seed, *key)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))

    @contextmanager
    def _seeded(self, *key: str | int) -> Iterator[None]:
        """Seed the global generators, which dropout draws from, and give the caller's back afterwards.

        Each process drops out of its own images, so each draws something else.
        """
        with torch.random.fork_rng():
            key = key if distributed.rank() == 0 else (*key, distributed.rank())
            torch.manual_seed(self.generator("global", *key).initial_seed() % 2**63)
            yield
