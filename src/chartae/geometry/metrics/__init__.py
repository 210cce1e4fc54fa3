"""Riemannian metrics, their parameters, and normal distributions in tangent spaces."""
