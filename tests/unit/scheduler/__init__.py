"""Tests in memory of ``dangad.scheduler``."""
