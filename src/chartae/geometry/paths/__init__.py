"""Geodesics: the exponential map, shortest paths, distributions carried along them."""
