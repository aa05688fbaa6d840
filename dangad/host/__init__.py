"""The machine and the server's own process, as the operating system and Python give them.

- :mod:`.lean`: Twisted without TLS, for a shorter start.
- :mod:`.clock`: a clock that does not follow the wall clock.
- :mod:`.turns`, :mod:`.shortturns`, :mod:`.garbage`: how much is done in one turn of the reactor.
- :mod:`.capacity`: cores, memory and open files that may be used.
- :mod:`.memory`: what processes have of the machine's memory.
- :mod:`.reaping`: what a child process took, when it is dead.
- :mod:`.descent`: which process descends from which.
- :mod:`.processcontrol`: what Linux does with a process when its parent dies.
- :mod:`.inheritance`: the open files that the process inherits.
- :mod:`.startfailure`: how a failed start is reported.
- :mod:`.logstream` and :mod:`.quietlog`: a log that neither blocks nor floods.
"""
