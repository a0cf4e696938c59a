"""Lease a model: loads it when needed, once for all who ask; nothing above this layer knows about processes."""
