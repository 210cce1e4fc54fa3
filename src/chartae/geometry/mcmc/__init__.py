"""Markov chains on a manifold: its density, kernels, and the driver that runs them."""
