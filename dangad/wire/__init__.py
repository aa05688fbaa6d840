"""The bytes that cross a socket or a pipe. No I/O; every other room may import it.

- :mod:`.boxes`: AMP boxes, read within bounds and written.
- :mod:`.values`: arguments of any size, priorities and numbers.
- :mod:`.argumentcheck`: whether a value is what an argument is declared to carry.
- :mod:`.commands`: dangad's own AMP commands.
- :mod:`.controlwords`: the words and limits of the control endpoint.
- :mod:`.catalogue`: job types and their policies as a document.
- :mod:`.words`: values as words that people type, and as JSON.
- :mod:`.callwords`: calls as lines for the shell, and examples of them.
- :mod:`.workerboxes`: what the parent and a worker say to each other, for both ends.
"""
