"""Tests in memory of ``dangad.worker``."""
