"""Tests in memory alone: no process, no socket, fake clocks; folders as in ``dangad``."""
