"""Markov chains on a manifold: the target density, kernels, and the driver of the chains."""
