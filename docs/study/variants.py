"""Variants of the evidence network, for the study alone."""
