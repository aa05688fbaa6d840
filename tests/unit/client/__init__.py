"""Tests in memory of ``dangad.client``."""
