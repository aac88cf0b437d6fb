"""Focusing: sparse voxels trained by rendering only what a view needs (paper 000_429aae4d51d49332)."""
