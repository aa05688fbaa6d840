"""All that runs in a worker process; nothing in it is imported by the parent.

- :mod:`.child`: the process: it boots, says Hello, and takes one job after the other.
- :mod:`.settings`, :mod:`.stdio`: how the process is made as its settings want it, and what it
  prints.
- :mod:`.pipe`: its ends of the pipes to the parent.
- :mod:`.perform`: a request box into an answer, by a call of a job function.
- :mod:`.jobtypes`: where the job functions come from.
- :mod:`.context`, :mod:`.following`: what they may ask while they run, in their threads too.
- :mod:`.loops`: the event loops that jobs share.
- :mod:`.failures`: what is said of what they raise.
- :mod:`.usage`, :mod:`.processstate`, :mod:`.offspring`, :mod:`.forks`: what a job has used, has
  changed, and leaves behind.
"""
