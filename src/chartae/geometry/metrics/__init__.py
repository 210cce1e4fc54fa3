"""Metrics, what they are made of, and normals in tangent spaces."""
