"""Who runs what, when, and what ends it: pure rules, one clock, no I/O.

- :mod:`.interfaces`: what the rooms promise each other.
- :mod:`.record`: a job, and the states of its life.
- :mod:`.dispatcher`: every event of a job's life. Its parts decide what follows:
  :mod:`.admission`, :mod:`.answers`, :mod:`.endings`, :mod:`.retries`, :mod:`.absences`,
  :mod:`.descriptions` and :mod:`.interventions`. All share :mod:`.state`.
- :mod:`.matching`: which job starts next, and on which worker. It asks four parts: the queue for
  the next turn (:mod:`.fairqueue`, :mod:`.ranks`, :mod:`.rounds`, :mod:`.lines`, :mod:`.aside`),
  :mod:`.concurrency` for the jobs that must wait, :mod:`.assignments` for the idle workers, and
  :mod:`.prefetch` for the jobs that a busy worker may have in addition.
- :mod:`.registry`, :mod:`.quarantine`, :mod:`.runtimes`: which commands can be called, which are
  kept away, and how long their jobs take.
- :mod:`.pauses`, :mod:`.wariness`: jobs whose clients do not read.
- :mod:`.drain`: the end of all jobs.
- :mod:`.supervisor`, :mod:`.workerrecord`: how many workers there are, and the states of a
  worker's life. Further rules are in :mod:`.pacing`, :mod:`.failingstarts`, :mod:`.watch`,
  :mod:`.relief`, :mod:`.reload` and :mod:`.dismissal`.
- :mod:`.counters`, :mod:`.metrics`, :mod:`.workerhistory`: what is remembered and counted.
- :mod:`.joblog`: the lines about jobs in the log. :mod:`.reasons`: the errors for clients.
- :mod:`.alarms`, :mod:`.chores`: work in bounded parts. :mod:`.outbox`: calls that come last.
- :mod:`.clockcalls`: calls of the clock that may fail.
"""
