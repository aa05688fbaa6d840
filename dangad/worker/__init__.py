"""Everything that runs in a worker process; the parent imports nothing of it.

- :mod:`.child`: the main program: it boots, says Hello, and takes one job after the other.
- :mod:`.template`, :mod:`.siblings`: the process that forks workers, and how.
- :mod:`.preload`, :mod:`.hooks`: job modules that forks share, and what each worker does itself.
- :mod:`.settings`, :mod:`.stdio`: apply the worker's settings, and set up its output.
- :mod:`.pipe`: the worker's ends of the pipes to the parent.
- :mod:`.perform`: turns a request box into an answer, by calling a job function.
- :mod:`.jobtypes`: finds the job functions.
- :mod:`.context`, :mod:`.following`: the running job, as its function and its threads see it.
- :mod:`.loops`: the event loops that jobs share.
- :mod:`.failures`: describes the exceptions that job functions raise.
- :mod:`.usage`, :mod:`.processstate`, :mod:`.offspring`, :mod:`.forks`: measure the resource usage
  of a job, put back its changes of the process, and deal with the processes that it starts.
"""
