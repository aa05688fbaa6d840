"""Servers of our own that dangad is compared with: as small as they can be, and fair."""
