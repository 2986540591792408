"""Ladders of replicas in flight: the state that rbm_temper_ works on, whole or split over processes."""

from __future__ import annotations

import math
from collections import deque
from copy import copy
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from dvae_ext import ops, rng
from dvae_ext.rbm.ladder import first_ladder
from dvae_ext.rbm.mixture import Mixture
from dvae_ext.rbm.statistics import (
    BATCH_SQUARE,
    INCREMENT,
    ROUND_TRIPS,
    PathEstimate,
    empty_statistics,
    estimate_path,
    increments,
    rejection,
)
from dvae_ext.reference.rbm_temper import negative_free_energy

JUMP_EVERY = 64  # sweeps
_SNAPSHOTS = 4  # what a mixture is fitted to
_WINDOW = 2  # levels on either side that belong to it: both sides of a transition
_LOCAL_COMPONENTS = 16
_FITTED_TOGETHER = 32  # levels, to bound the memory


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

    def negative_free_energy(self, visible: Tensor, beta: Tensor) -> Tensor:
        """log of the unnormalised marginal of ``visible`` at ``beta``, which broadcasts against its leading shape."""
        reference = (self.reference_visible_bias, self.reference_hidden_bias)
        return negative_free_energy(visible, self.weight, self.visible_bias, self.hidden_bias, *reference, beta)

    @property
    def model(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.visible_bias, self.hidden_bias

    def double(self) -> Path:
        return Path(
            self.weight.double(),
            self.visible_bias.double(),
            self.hidden_bias.double(),
            self.reference_visible_bias.double(),
            self.reference_hidden_bias.double(),
            self.reference,
        )

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
    """``ladders`` ladders of one replica per level, of which this process holds its share.

    Args:
        path: what the ladders climb.
        betas: the first levels.
        ladders: of all processes together.
        seed: of the states and of all draws.
        world: the processes.
        modes: a mixture of one level that holds the modes of the model. With it replicas jump: see :meth:`jump`.
    """

    def __init__(
        self, path: Path, betas: Tensor, ladders: int, seed: int, world: World, modes: Mixture | None = None
    ) -> None:
        self.path, self.ladders, self.world, self.modes = path, ladders, world, modes
        self.exact_path = path.double()  # so that no rounding, which threads may change, decides on a jump
        self.first_ladder, self.own_ladders = world.share(ladders)
        self.device = path.weight.device
        self.key = rng.key(seed, self.device)
        # Every process draws for all ladders and keeps its own.
        self.generator = torch.Generator().manual_seed(seed & (2**63 - 1))
        self.visible = self._coins(len(betas))
        self.mixture: Mixture | None = None
        self.place(betas, betas.new_zeros(len(betas) - 1))

    def on(self, path: Path) -> Ensemble:
        """New ladders on another path to the same model, of as many levels, which repeat none of the draws."""
        other = copy(self)  # with the same generator
        other.path, other.exact_path, other.mixture = path, path.double(), None
        other.key, other.visible = self.key.clone(), self._coins(len(self.betas))
        betas = first_ladder(len(self.betas))
        other.place(betas, betas.new_zeros(len(betas) - 1))
        return other

    def _coins(self, levels: int) -> Tensor:
        return (self._uniform(levels, self.path.weight.shape[0]) < 0.5).to(self.path.weight.dtype)

    def _uniform(self, *shape: int) -> Tensor:
        """``[own ladders, *shape]``"""
        everyone = torch.rand(self.ladders, *shape, generator=self.generator, dtype=torch.float32, device="cpu")
        return everyone[self.first_ladder : self.first_ladder + self.own_ladders].to(self.device)

    def _everyone(self, own: Tensor) -> Tensor:
        """What all processes hold of ``own [own ladders, ...]``, in the order of the ladders."""
        if self.world.size == 1:
            return own
        everything = own.new_zeros(self.ladders, *own.shape[1:])
        everything[self.first_ladder : self.first_ladder + self.own_ladders] = own
        return self.world.sum(everything)

    def place(self, betas: Tensor, shifts: Tensor) -> None:
        """Puts fresh ladders on ``betas``; ``visible`` holds one row per level."""
        self.betas = betas
        self.centre_on(shifts)
        self.level = torch.arange(len(betas), device=self.device).repeat(self.own_ladders, 1)
        self.travel = torch.zeros_like(self.level)
        self.snapshots: deque[Tensor] = deque(maxlen=_SNAPSHOTS)
        self.forget()

    def centre_on(self, shifts: Tensor) -> None:
        """Bridge sampling looks for each increment of log Z near these."""
        # Levels without overlap have no increment to centre on; the estimate over them then says so itself.
        self.shifts = shifts.nan_to_num(0.0, 0.0, 0.0)

    def at_levels(self) -> Tensor:
        """The states by level in place of replica: ``[own ladders, levels, n_visible]``."""
        return self.visible.gather(1, self.level.argsort(1)[..., None].expand_as(self.visible))

    def move_to(self, betas: Tensor, shifts: Tensor) -> None:
        """New levels start from the states of the nearest old ones."""
        nearest = (betas[:, None] - self.betas).abs().argmin(1).to(self.device)
        snapshots = [snapshot[:, nearest] for snapshot in self.snapshots]
        self.visible = self.at_levels()[:, nearest].contiguous()
        self.place(betas, shifts)
        self.snapshots.extend(snapshots)
        self.fit()

    def forget(self) -> None:
        """Starts the statistics afresh."""
        self.statistics = empty_statistics(self.own_ladders, len(self.betas), self.device)
        self.jumped = torch.zeros(self.own_ladders, len(self.betas), dtype=torch.float64, device=self.device)
        self.jumps, self.sweeps = 0, 0

    def run(self, sweeps: int, batch: int | None = None) -> None:
        """``sweeps`` sweeps in batches, by default one, with a jump every 64 sweeps and after each batch."""
        batch = batch or sweeps
        every = batch if self.modes is None else JUMP_EVERY
        for _ in range(0, sweeps, batch):
            before = self.statistics[:, [INCREMENT, BATCH_SQUARE]]
            for begin in range(0, batch, every):
                self._sweep(min(every, batch - begin))
                self.jump()
            # A batch made in pieces: the op has squared the sum of each.
            of_batch = self.statistics[:, INCREMENT] - before[:, 0]
            self.statistics[:, BATCH_SQUARE] = before[:, 1] + of_batch.square()
        self.sweeps += sweeps

    def _sweep(self, sweeps: int) -> None:
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
                sweeps,
                self.first_ladder,
            )
        rng.advance_(self.key, sweeps)

    def jump(self) -> None:
        """Proposes to every replica a state drawn from the mixture of its level, and accepts as Metropolis does.

        The distribution of each level stays what it is, whatever the mixture. Where the mixture holds a level's modes,
        replicas change between modes that neither sweeps nor swaps lead out of (the independence sampler of Tierney
        1994, between the modes that were found beforehand).
        """
        if self.modes is None:
            return
        old = self.at_levels()
        self.snapshots.append(old)
        if self.mixture is None:
            return
        uniform = self._uniform(old.shape[1], old.shape[2] + 2).double().transpose(0, 1)
        old = old.double().transpose(0, 1).contiguous()
        new = self.mixture.sample(uniform[..., 1:])
        beta = self.betas.to(old)[:, None]
        gain = self.exact_path.negative_free_energy(new, beta) - self.exact_path.negative_free_energy(old, beta)
        gain += self.mixture.log_prob(old) - self.mixture.log_prob(new)
        accepted = (torch.log(uniform[..., 0]) < gain).T
        states = torch.where(accepted[..., None], new.transpose(0, 1), old.transpose(0, 1)).to(self.visible.dtype)
        self.visible.scatter_(1, self.level.argsort(1)[..., None].expand_as(self.visible), states)
        self.jumped += accepted
        self.jumps += 1

    def fit(self) -> None:
        """The mixtures of the levels: modes of the model, states of the levels around, and their marginals."""
        if self.modes is None:
            return
        snapshots = self._everyone(torch.stack(list(self.snapshots), 1))  # [ladders, snapshots, levels, n_visible]
        states = snapshots.flatten(0, 1).transpose(0, 1)
        levels = len(states)
        parts = []
        for some in torch.arange(levels, device="cpu").split(_FITTED_TOGETHER):
            window = (some[:, None] + torch.arange(-_WINDOW, _WINDOW + 1, device="cpu")).clamp(0, levels - 1)
            around = states[window].flatten(1, 2)
            local = Mixture.fit(around, _LOCAL_COMPONENTS, self.generator)
            broad = Mixture.independent(around)
            parts.append(Mixture.of([(0.5, local), (0.4, self.modes), (0.1, broad)]))
        self.mixture = Mixture.stack(parts)

    def gathered_statistics(self) -> Tensor:
        """The statistics of all ladders, in their order, on the CPU."""
        return self._everyone(self.statistics).cpu()

    def look(self) -> tuple[Tensor, Tensor]:
        """Increments of log Z and rejection of each pair, so far: what adaptation needs."""
        statistics = self.gathered_statistics()
        return increments(statistics, self.shifts), rejection(statistics, self.sweeps)

    def stuck(self) -> tuple[float, float]:
        """The share of replicas that have made no round trip, and what of it chance does not explain.

        Of replicas that make m journeys on average and are not held anywhere, at most exp(-m) have made none.
        """
        journeys = self.gathered_statistics()[:, ROUND_TRIPS]
        share = (journeys == 0).double().mean().item()
        return share, max(0.0, share - math.exp(-journeys.mean().item()))

    def jump_acceptance(self) -> Tensor:
        """Of each level."""
        return self._everyone(self.jumped).cpu().mean(0) / max(1, self.jumps)

    def estimate(self, batch: int = 1) -> PathEstimate:
        return estimate_path(self.gathered_statistics(), self.shifts, self.sweeps, batch)

    def top_states(self) -> Tensor:
        """The states at the model, of all ladders."""
        return self._everyone(self.visible[self.level == len(self.betas) - 1])

    def top_means(self, calls: int, sweeps: int) -> tuple[Tensor, Tensor]:
        """Means of visible and hidden units at beta = 1, from the states after each of ``calls`` runs."""
        path = self.exact_path
        visible_sum, hidden_sum = torch.zeros_like(path.visible_bias), torch.zeros_like(path.hidden_bias)
        for _ in range(calls):
            self.run(sweeps)
            top = self.visible[self.level == len(self.betas) - 1].double()
            visible_sum += top.sum(0)
            hidden_sum += torch.sigmoid(path.hidden_bias + top @ path.weight).sum(0)
        self.world.sum(visible_sum), self.world.sum(hidden_sum)
        count = calls * self.ladders
        return (visible_sum + 1) / (count + 2), (hidden_sum + 1) / (count + 2)  # a mean of 0 or 1 has no logit
