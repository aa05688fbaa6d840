"""Who runs what, when, and what ends it: pure rules, one clock, no I/O.

- :mod:`.interfaces`: what the rooms promise each other.
- :mod:`.record`: a job, and the states of its life.
- :mod:`.dispatcher`: every event of a job's life. What follows from it is in :mod:`.admission`,
  :mod:`.answers`, :mod:`.endings` and :mod:`.retries`; what all of them know, in :mod:`.state`.
- :mod:`.matching`: which job starts next, and on which worker. Whose turn it is say
  :mod:`.fairqueue`, :mod:`.rounds`, :mod:`.lines` and :mod:`.aside`; what has to wait,
  :mod:`.concurrency`; who is idle, :mod:`.assignments`; what a busy worker may have besides,
  :mod:`.prefetch`.
- :mod:`.registry`, :mod:`.quarantine`, :mod:`.runtimes`: what can be performed, what is kept away,
  and how long jobs take.
- :mod:`.pauses`, :mod:`.wariness`: jobs whose clients do not read.
- :mod:`.drain`: the end of all jobs.
- :mod:`.supervisor`, :mod:`.workerrecord`: how many workers there are, and the states of a
  worker's life. Its rules are also in :mod:`.pacing`, :mod:`.failingstarts`, :mod:`.watch`,
  :mod:`.relief`, :mod:`.reload` and :mod:`.dismissal`.
- :mod:`.counters`, :mod:`.reasons`: what is remembered of jobs, and what clients are told.
- :mod:`.alarms`, :mod:`.chores`, :mod:`.outbox`: work in bounded parts, and told last.
- :mod:`.clockcalls`: calls of the clock that may fail.
"""
