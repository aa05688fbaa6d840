"""Tests in memory of ``dangad.operators``."""
