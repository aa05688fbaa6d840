"""Bytes and words that cross a socket or a pipe; no I/O, and everybody imports it.

- :mod:`.boxes`: AMP boxes, read within bounds and written.
- :mod:`.values`: arguments of any size, priorities and numbers in them.
- :mod:`.argumentcheck`: whether a value is what an argument is declared to carry.
- :mod:`.commands`: dangad's own AMP commands.
- :mod:`.catalogue`: job types and their policies as a document.
- :mod:`.workerboxes`: what the parent and a worker say to each other, both ends of it.
"""
