"""Tests in memory of ``dangad.options``."""
