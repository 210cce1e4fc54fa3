"""Data augmentation from few labelled examples."""

from chartae.augmentation.augmenter import MODELS, SAMPLERS, Augmenter

__all__ = ["MODELS", "SAMPLERS", "Augmenter"]
