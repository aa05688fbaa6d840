"""Tests in memory of ``dangad.wire``."""
