"""What a trained model is worth."""

from dvae_ext.evaluation.bound import (
    BoundEstimate,
    HasBoundTerms,
    HasPosteriorFeatures,
    active_units,
    bound,
    features,
)
from dvae_ext.evaluation.likelihood import (
    LikelihoodEstimate,
    log_likelihood,
    loose_share,
    warnings_of_samples,
    warnings_of_values,
)
from dvae_ext.evaluation.probes import Score, probe

__all__ = [
    "BoundEstimate",
    "HasBoundTerms",
    "HasPosteriorFeatures",
    "LikelihoodEstimate",
    "Score",
    "active_units",
    "bound",
    "features",
    "log_likelihood",
    "loose_share",
    "probe",
    "warnings_of_samples",
    "warnings_of_values",
]
