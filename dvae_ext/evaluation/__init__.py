"""What a trained model is worth."""

from dvae_ext.evaluation.likelihood import LikelihoodEstimate, log_likelihood

__all__ = ["LikelihoodEstimate", "log_likelihood"]
