"""Where jobs run: worker processes on this machine, each an ``IWorker`` for the scheduler.

- :mod:`.processes`: the only adapter around ampoule, which starts and stops the processes.
- :mod:`.launch`, :mod:`.preflight`: how a worker starts, and a trial import of the job modules.
- :mod:`.template`, :mod:`.succession`, :mod:`.forkorders`, :mod:`.templateprocess`,
  :mod:`.forkedprocess`, :mod:`.witness`: forks workers from a warm process, and checks its reports.
- :mod:`.link`: one worker as the scheduler knows it, with its life.
- :mod:`.connector`, :mod:`.jobpipe`: the link's view of the process and of the pipe to it.
- :mod:`.givenjobs`, :mod:`.jobprobe`: the worker's jobs, and a check that it still has them.
- :mod:`.speech`: the boxes that a worker may write.
- :mod:`.workeroutput`, :mod:`.output`, :mod:`.outputlog`, :mod:`.outputmemory`: what a worker
  prints.
- :mod:`.interruption`, :mod:`.killing`, :mod:`.obituary`: how a job is stopped, how a worker is
  killed, and the report of its death.
- :mod:`.containment`: confines a failure of the server's own to one worker.
- :mod:`.guardian`, :mod:`.orphans`: the processes that outlive a worker, or the parent.
"""
