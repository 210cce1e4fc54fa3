"""Geodesics: the exponential map, shortest paths, and the wrapped normal distribution."""
