"""The front door: clients' connections, onto :class:`dangad.scheduler.interfaces.IClient`.

- :mod:`.endpoints`, :mod:`.listening`, :mod:`.unixport`: where the server listens.
- :mod:`.factory`, :mod:`.acceptgate`, :mod:`.access`, :mod:`.peers`, :mod:`.refusal`,
  :mod:`.passeddescriptors`: who may connect, and how many.
- :mod:`.connection`: one client; its requests become jobs, and outcomes become answers.
- :mod:`.options`, :mod:`.owncommands`: what a request asks for beside a job.
- :mod:`.flowcontrol`, :mod:`.eagerwriter`, :mod:`.holdings`: what is read of it, written to it, and
  held for it meanwhile.
- :mod:`.boxwatch`, :mod:`.stallwatch`, :mod:`.memorybudget`: the watches that keep one client's
  troubles from all others.
- :mod:`.bindfailure`: why a socket cannot be listened on, in words.
"""
