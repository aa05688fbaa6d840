"""The front door: connections of clients, each an :class:`dangad.scheduler.interfaces.IClient`.

- :mod:`.endpoints`, :mod:`.listening`, :mod:`.unixport`: where the server listens.
- :mod:`.factory`, :mod:`.acceptgate`, :mod:`.access`, :mod:`.peers`, :mod:`.refusal`,
  :mod:`.passeddescriptors`: who may connect, and how many.
- :mod:`.connection`: one client; its requests become jobs, and outcomes become answers.
- :mod:`.options`, :mod:`.owncommands`: the reserved keys of a request, and dangad's own commands.
- :mod:`.flowcontrol`, :mod:`.eagerwriter`, :mod:`.holdings`: when a client is read, how answers are
  written to it, and the bytes that are held for it.
- :mod:`.boxwatch`, :mod:`.stallwatch`, :mod:`.memorybudget`: watches that protect the other clients
  from a slow or greedy one.
- :mod:`.bindfailure`: explains to operators why a socket cannot be opened.
"""
