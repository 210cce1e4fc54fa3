"""Statistics with Riemannian distances: distance matrices, means, clusters."""
