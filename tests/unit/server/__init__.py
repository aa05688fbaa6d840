"""Tests in memory of ``dangad.server``."""
