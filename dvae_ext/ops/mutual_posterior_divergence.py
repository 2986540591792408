"""The mutual posterior-divergence regularisers of MAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from dvae_ext.ops._autograd import call_backward, refuse_second_order, register_autograd
from dvae_ext.ops._posteriors import check_posteriors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class MutualPosteriorDivergence(NamedTuple):
    """Diverse (MAE eq. 5), smooth (eq. 6) and the mean divergence (eq. 4), scalars."""

    diverse: Tensor
    smooth: Tensor
    mpd: Tensor


@torch.library.register_fake("dvae_ext::mutual_posterior_divergence")
def _fake(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    compute = torch.float64 if mean.dtype == torch.float64 else torch.float32
    scalars = mean.new_empty(()), mean.new_empty(()), mean.new_empty(())
    kl = mean.new_empty((mean.shape[0], mean.shape[0]), dtype=compute)
    return *scalars, kl, mean.new_empty((3,), dtype=torch.float64)


@torch.library.register_fake("dvae_ext::mutual_posterior_divergence_backward")
def _fake_backward(
    grad_diverse: Tensor,
    grad_smooth: Tensor,
    grad_mpd: Tensor,
    mean: Tensor,
    logvar: Tensor,
    kl: Tensor,
    statistics: Tensor,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(mean), torch.empty_like(logvar)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[3], output[4])


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
    # The last two outputs serve this function alone and reach no caller, so they have no gradient.
    return call_backward(
        torch.ops.dvae_ext.mutual_posterior_divergence_backward.default, *grads[:3], *ctx.saved_tensors
    )


_OP = register_autograd("mutual_posterior_divergence", _backward, _setup_context)
refuse_second_order("mutual_posterior_divergence")


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks, in the order of ranks; the gradient of a row is summed over the ranks that used it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: ProcessGroup) -> Tensor:
        import torch.distributed as dist

        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size(group))]
        dist.all_gather(counts, torch.tensor([rows.shape[0]], device=rows.device), group=group)
        sizes = [int(count) for count in counts]
        # Ranks may hold batches of different size; collectives may not.
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        pieces = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(pieces, padded, group=group)
        rank = dist.get_rank(group)
        ctx.group, ctx.begin, ctx.count = group, sum(sizes[:rank]), rows.shape[0]
        return torch.cat([piece[:size] for piece, size in zip(pieces, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        import torch.distributed as dist

        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.begin : ctx.begin + ctx.count], None


def mutual_posterior_divergence(
    mean: Tensor, logvar: Tensor, group: ProcessGroup | None = None
) -> MutualPosteriorDivergence:
    """Diverse, smooth and mean mutual divergence of a batch of diagonal normal posteriors (MAE eqs. 4-8).

    With KL_k(i, j) the divergence of posteriors i and j in dimension k and the means over the ordered pairs i ≠ j:
    ``diverse`` = Σ_k mean softplus(-KL_k), ``mpd`` = mean Σ_k KL_k, ``smooth`` = unbiased standard deviation of
    Σ_k KL_k. Nothing of size ``batch · batch · dims`` exists, forward or backward; no sum depends on the number of
    threads.

    Args:
        mean: ``[batch, dims]``, batch ≥ 2.
        logvar: ``[batch, dims]``, logarithms of the variances.
        group: process group whose ranks' posteriors are gathered first, differentiably; every rank then returns the
            divergences of the whole batch. Gradients are summed over ranks, so after the averaging of
            DistributedDataParallel they equal those of one process on the whole batch. ``None``: this rank alone.

    Returns:
        Three scalars, ``diverse`` ≥ 0, ``smooth`` ≥ 0 (NaN never: its gradient is zero where all divergences agree, and
        it is infinite beside an infinite divergence) and ``mpd`` ≥ 0, in the dtype of ``mean``. float32, float64, and
        bfloat16 or float16 with float32 inside; sums over pairs in float64. Differentiable once in both arguments; a
        second time is an error. NaN in, NaN out.

    Raises:
        TypeError: an argument is no tensor of these dtypes, or dtypes differ.
        ValueError: a shape is not ``[batch, dims]``, shapes differ, or the (gathered) batch has fewer than two rows.
        RuntimeError: tensors on different devices, or on a device without kernels.

    Example:
        >>> import torch
        >>> from dvae_ext import ops
        >>> diverse, smooth, mpd = ops.mutual_posterior_divergence(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1))
        >>> print(f"{diverse:.4f} {smooth:.4f} {mpd:.4f}")
        0.1269 0.0000 2.0000
    """
    op = "mutual_posterior_divergence"
    mean, logvar = check_posteriors(op, mean=mean, logvar=logvar)
    if group is not None:
        both = _GatherRows.apply(torch.stack([mean, logvar], dim=1), group)
        mean, logvar = both[:, 0].contiguous(), both[:, 1].contiguous()
    if mean.shape[0] < 2:
        raise ValueError(f"{op}: mean has {mean.shape[0]} rows, expected at least 2: one posterior has no pairs")
    diverse, smooth, mpd, _, _ = _OP(mean, logvar)
    return MutualPosteriorDivergence(diverse, smooth, mpd)
