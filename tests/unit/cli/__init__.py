"""Tests in memory of ``dangad.cli``."""
