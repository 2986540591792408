"""A picture of how an estimate of log Z came about."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from dvae_ext.rbm.log_z import LogZEstimate


def plot_log_z(estimate: LogZEstimate, path: str | Path) -> None:
    """Writes a PNG or PDF: rejection of each pair, the local barrier along the path, and the estimate as it settled.

    Args:
        estimate: of ``log_z(..., method="tempering")``.
        path: the file; its ending decides the format.

    Raises:
        ValueError: the estimate has no ladder, because its method was another or the weights are zero.
        ImportError: matplotlib is not installed.
    """
    if not estimate.betas:
        raise ValueError(f"plot_log_z: an estimate by {estimate.method!r} has no ladder to draw")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot_log_z needs matplotlib: pip install 'dvae_ext[train]'") from None
    betas = estimate.betas
    widths = [upper - lower for lower, upper in pairwise(betas)]
    middles = [(upper + lower) / 2 for lower, upper in pairwise(betas)]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    rejection, local, trace = figure.subplots(1, 3)

    rejection.bar(range(len(widths)), estimate.rejection, color="tab:blue")
    rejection.set(title="rejection of neighbours", xlabel="pair of levels", ylim=(0, 1))
    density = [r / max(width, 1e-12) for r, width in zip(estimate.rejection, widths, strict=True)]
    local.plot(middles, density, "o-", markersize=3)
    local.set(title=f"local barrier, Λ = {estimate.barrier:.2f}", xlabel="β", ylim=(0, None))
    sweeps, values, errors = zip(*estimate.trace, strict=True)
    trace.errorbar(sweeps, values, [2 * error for error in errors], fmt="o-", markersize=3, capsize=2)
    trace.axhspan(min(estimate.lower, estimate.upper), max(estimate.lower, estimate.upper), alpha=0.2)
    trace.set(title="log Z ± 2 standard errors\n(band: stepping stones)", xlabel="sweeps")
    trace.ticklabel_format(useOffset=False)
    figure.suptitle(str(estimate).splitlines()[0])
    figure.savefig(path, dpi=120)
