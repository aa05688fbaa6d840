"""Where jobs run: worker processes on this machine, each one an ``IWorker`` of the scheduler's.

- :mod:`.processes`: the one adapter around ampoule, which starts and stops the processes.
- :mod:`.launch`, :mod:`.preflight`: how a worker begins, and whether it could.
- :mod:`.link`, :mod:`.jobpipe`, :mod:`.connector`: one worker's boxes, pipes and life.
- :mod:`.jobprobe`: whether it still has the job that it was given.
- :mod:`.output`, :mod:`.outputlog`: what it prints.
- :mod:`.obituary`: what ended it, in words.
- :mod:`.guardian`, :mod:`.orphans`: the processes that outlive it.
"""
