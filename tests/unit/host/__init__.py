"""Tests in memory of ``dangad.host``."""
