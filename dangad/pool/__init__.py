"""Where jobs run: worker processes on this machine, each one an ``IWorker`` of the scheduler's.

- :mod:`.processes`: the one adapter around ampoule, which starts and stops the processes.
- :mod:`.launch`, :mod:`.preflight`: how a worker begins, and whether it could.
- :mod:`.link`: one worker as the scheduler knows it, with its life.
- :mod:`.connector`, :mod:`.jobpipe`: what the link asks of the process and of the pipe to it.
- :mod:`.givenjobs`, :mod:`.jobprobe`: the jobs that it was given, and whether it still has them.
- :mod:`.speech`: what it may say.
- :mod:`.workeroutput`, :mod:`.output`, :mod:`.outputlog`: what it prints.
- :mod:`.interruption`, :mod:`.killing`, :mod:`.obituary`: how its job or itself is ended, and what
  is told of its end.
- :mod:`.containment`: what keeps a failure of the server's own with one worker.
- :mod:`.guardian`, :mod:`.orphans`: the processes that outlive it.
"""
