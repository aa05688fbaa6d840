"""The front door: clients' connections, onto :class:`dangad.scheduler.interfaces.IClient`.

- :mod:`.listening`, :mod:`.unixport`: where the server listens.
- :mod:`.factory`, :mod:`.acceptgate`, :mod:`.access`, :mod:`.peers`, :mod:`.refusal`,
  :mod:`.passeddescriptors`: who may connect, and how many.
- :mod:`.connection`: one client; its requests become jobs, and outcomes become answers.
- :mod:`.options`, :mod:`.owncommands`: what a request asks for beside a job.
- :mod:`.flowcontrol`, :mod:`.boxwatch`, :mod:`.stallwatch`, :mod:`.memorybudget`,
  :mod:`.eagerwriter`: what keeps one client's troubles from all others.
"""
