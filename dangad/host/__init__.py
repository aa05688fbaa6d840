"""The machine and the server's own process, as the operating system and Python give them.

- :mod:`.clock`: a clock that nobody sets.
- :mod:`.turns`, :mod:`.shortturns`, :mod:`.garbage`: how much is done in one turn of the reactor.
- :mod:`.capacity`: cores, memory and open files that may be used.
- :mod:`.memory`: what processes have of the machine's memory.
- :mod:`.descent`: which process descends from which.
- :mod:`.processcontrol`: what Linux does with a process at its parent's death.
- :mod:`.inheritance`: what the process has from whoever started it.
- :mod:`.startfailure`: how a start that fails is told.
- :mod:`.logstream` and :mod:`.quietlog`: a log that neither blocks nor floods.
"""
