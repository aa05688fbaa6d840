"""Tests in memory of ``dangad.pool``."""
