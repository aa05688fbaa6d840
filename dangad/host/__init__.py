"""The machine and the server's own process, as the operating system and Python provide them.

- :mod:`.lean`: Twisted without TLS, for a shorter start.
- :mod:`.clock`: a clock that does not follow the wall clock.
- :mod:`.turns`, :mod:`.shortturns`, :mod:`.garbage`: how much is done in one turn of the reactor.
  :mod:`.reactorwatch`: how long the turns take, and what blocks.
- :mod:`.capacity`: how many cores, how much memory and how many open files may be used.
- :mod:`.memory`: how much memory processes have.
- :mod:`.reaping`: how much CPU time and memory a dead child process has used.
- :mod:`.descent`: which process descends from which.
- :mod:`.processcontrol`: what Linux does with a process when its parent dies.
- :mod:`.keeper`: a server that ends with the program that has started it.
- :mod:`.inheritance`: the open files that the process inherits.
- :mod:`.startfailure`: how a failed start is reported.
- :mod:`.logobserver`, :mod:`.logformat`: where the log goes, and in which form.
  :mod:`.logstream` and :mod:`.quietlog`: a log that neither blocks nor floods.
"""
