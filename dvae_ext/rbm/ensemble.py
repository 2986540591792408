"""Ladders of replicas in flight: the state that rbm_temper_ works on, whole or split over processes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from dvae_ext import ops, rng
from dvae_ext.precision import without_autocast
from dvae_ext.rbm.statistics import PathEstimate, empty_statistics, estimate_path, increments, rejection


@dataclass(frozen=True)
class Path:
    """A model and the independent units from which the path to it starts."""

    weight: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor
    reference_visible_bias: Tensor
    reference_hidden_bias: Tensor
    reference: str

    @staticmethod
    def uniform(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Path:
        zeros = torch.zeros_like(visible_bias), torch.zeros_like(hidden_bias)
        return Path(weight, visible_bias, hidden_bias, *zeros, "uniform")

    def independent(self, visible_mean: Tensor, hidden_mean: Tensor) -> Path:
        """The path from independent units with these means."""
        biases = [torch.logit(mean).to(self.weight) for mean in (visible_mean, hidden_mean)]
        return replace(self, reference_visible_bias=biases[0], reference_hidden_bias=biases[1], reference="independent")

    @property
    def reference_log_z(self) -> float:
        biases = torch.cat([self.reference_visible_bias, self.reference_hidden_bias]).double()
        return torch.logaddexp(biases, torch.zeros_like(biases)).sum().item()


@dataclass(frozen=True)
class World:
    """The processes that share the ladders: this one's rank, and how many there are."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> World:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return World(dist.get_rank(), dist.get_world_size())
        return World()

    def share(self, ladders: int) -> tuple[int, int]:
        """First ladder of this process, and how many it has."""
        begin, end = (ladders * rank // self.size for rank in (self.rank, self.rank + 1))
        return begin, end - begin

    def sum(self, tensor: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def first(self, value: float, device: torch.device) -> float:
        """The number that the first process has."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(tensor, 0)
        return tensor.item()


class Ensemble:
    """``ladders`` ladders of one replica per level, of which this process holds its share."""

    def __init__(self, path: Path, betas: Tensor, ladders: int, seed: int, world: World) -> None:
        self.path, self.ladders, self.world = path, ladders, world
        self.first_ladder, self.own_ladders = world.share(ladders)
        self.device = path.weight.device
        self.key = rng.key(seed, self.device)
        n_visible = path.weight.shape[0]
        # Every process draws all ladders' first states and keeps its own.
        generator = torch.Generator().manual_seed(seed & (2**63 - 1))
        states = torch.rand(ladders, len(betas), n_visible, generator=generator) < 0.5
        own = states[self.first_ladder : self.first_ladder + self.own_ladders]
        self.visible = own.to(path.weight.dtype).to(self.device)
        self.place(betas, torch.zeros(len(betas) - 1, dtype=torch.float64))

    def place(self, betas: Tensor, shifts: Tensor) -> None:
        """Puts fresh ladders on ``betas``; ``visible`` holds one row per level."""
        self.betas = betas
        self.centre_on(shifts)
        self.level = torch.arange(len(betas), device=self.device).repeat(self.own_ladders, 1)
        self.travel = torch.zeros_like(self.level)
        self.forget()

    def centre_on(self, shifts: Tensor) -> None:
        """Bridge sampling looks for each increment of log Z near these."""
        # Levels without overlap have no increment to centre on; the estimate over them then says so itself.
        self.shifts = shifts.nan_to_num(0.0, 0.0, 0.0)

    def move_to(self, betas: Tensor, shifts: Tensor) -> None:
        """New levels start from the states of the nearest old ones."""
        nearest = (betas[:, None] - self.betas).abs().argmin(1).to(self.device)
        replica = self.level.argsort(1)[:, nearest]
        self.visible = self.visible.gather(1, replica[..., None].expand(-1, -1, self.visible.shape[2])).contiguous()
        self.place(betas, shifts)

    def forget(self) -> None:
        """Starts the statistics afresh."""
        self.statistics = empty_statistics(self.own_ladders, len(self.betas), self.device)
        self.sweeps = 0

    def run(self, sweeps: int, batch: int = 1) -> None:
        if self.own_ladders > 0:
            ops.rbm_temper_(
                self.visible,
                self.level,
                self.travel,
                self.statistics,
                self.path.weight,
                self.path.visible_bias,
                self.path.hidden_bias,
                self.path.reference_visible_bias,
                self.path.reference_hidden_bias,
                self.betas.to(self.device),
                self.shifts.to(self.device),
                self.key,
                sweeps,
                batch,
                self.first_ladder,
            )
        rng.advance_(self.key, sweeps)
        self.sweeps += sweeps

    def gathered_statistics(self) -> Tensor:
        """The statistics of all ladders, in their order, on the CPU."""
        if self.world.size == 1:
            return self.statistics.cpu()
        everything = torch.zeros(self.ladders, *self.statistics.shape[1:], dtype=torch.float64, device=self.device)
        everything[self.first_ladder : self.first_ladder + self.own_ladders] = self.statistics
        return self.world.sum(everything).cpu()

    def look(self) -> tuple[Tensor, Tensor]:
        """Increments of log Z and rejection of each pair, so far: what adaptation needs."""
        statistics = self.gathered_statistics()
        return increments(statistics, self.shifts), rejection(statistics, self.sweeps)

    def estimate(self, batch: int = 1) -> PathEstimate:
        return estimate_path(self.gathered_statistics(), self.shifts, self.sweeps, batch)

    def top_means(self, calls: int, sweeps: int) -> tuple[Tensor, Tensor]:
        """Means of visible and hidden units at beta = 1, from the states after each of ``calls`` runs."""
        path = self.path
        visible_sum = torch.zeros_like(path.visible_bias, dtype=torch.float64)
        hidden_sum = torch.zeros_like(path.hidden_bias, dtype=torch.float64)
        for _ in range(calls):
            self.run(sweeps)
            top = self.visible[self.level == len(self.betas) - 1]
            visible_sum += top.sum(0, dtype=torch.float64)
            with without_autocast(top):
                field = path.hidden_bias + top @ path.weight
            hidden_sum += torch.sigmoid(field).sum(0, dtype=torch.float64)
        self.world.sum(visible_sum), self.world.sum(hidden_sum)
        count = calls * self.ladders
        return (visible_sum + 1) / (count + 2), (hidden_sum + 1) / (count + 2)  # a mean of 0 or 1 has no logit
