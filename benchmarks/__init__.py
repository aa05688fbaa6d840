"""How fast dangad is, and beside what: one module for each question, and one small harness.

``make bench`` asks all the questions, ``make bench ONLY=echo`` one of them; see
:mod:`benchmarks.__main__`. None of this is installed with dangad.

Who knows whom, from the top: a question (:mod:`~benchmarks.echo`, :mod:`~benchmarks.cpu_bound`,
:mod:`~benchmarks.connections`, :mod:`~benchmarks.backlog`, :mod:`~benchmarks.payload`,
:mod:`~benchmarks.startup`, :mod:`~benchmarks.recycling`, :mod:`~benchmarks.stalls`,
:mod:`~benchmarks.reactors`, :mod:`~benchmarks.models`) measures :mod:`~benchmarks.contenders` by
turns, through the :mod:`~benchmarks.harness`. A contender is some :mod:`~benchmarks.processes`: a
server, from :mod:`benchmarks.servers` or somebody else's, and a driver, from
:mod:`benchmarks.drivers`, which is the client, takes the times and checks the answers. What comes
of it is held against :mod:`~benchmarks.targets`, printed by :mod:`~benchmarks.table`, and put into
the documentation by :mod:`~benchmarks.publish`.
"""
