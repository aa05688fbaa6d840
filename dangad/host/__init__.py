"""The machine and the server's own process, as the operating system tells of them.

- :mod:`.clock`: a clock that nobody sets.
- :mod:`.capacity`: cores, memory and open files that may be used.
- :mod:`.memory`: what processes have of the machine's memory.
- :mod:`.descent`: which process descends from which.
- :mod:`.processcontrol`: what Linux does with a process at its parent's death.
- :mod:`.inheritance`: what the process has from whoever started it.
- :mod:`.logstream` and :mod:`.quietlog`: a log that neither blocks nor floods.
"""
