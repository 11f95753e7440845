"""A policy decision point for fine-grained access tokens: who may do what, from a lookup compiled beforehand."""

__version__ = "0.1.0"
