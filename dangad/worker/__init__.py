"""All that runs in a worker process; nothing in it is imported by the parent.

:mod:`~dangad.worker.child` is the process: it boots, says Hello, and takes one job after the
other from its pipe. :mod:`~dangad.worker.perform` turns a request box into an answer, by
calling a job function; :mod:`~dangad.worker.jobtypes` is where those come from,
:mod:`~dangad.worker.context` what they may ask while they run, :mod:`~dangad.worker.following`
how their threads come to ask the same, and :mod:`~dangad.worker.failures` what is said of what
they raise. :mod:`~dangad.worker.lean` comes before all of them.
"""
