"""Tests that do what the documents say, with the programs that a reader would type."""
