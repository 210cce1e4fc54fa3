"""Statistics with Riemannian distances: their matrices, means, clusters."""
