"""How fast dangad is, and beside what: one module for each question, and one small harness.

``make bench`` asks all the questions, ``make bench ONLY=echo`` one of them; see
:mod:`tests.benchmarks.__main__`. None of this is installed with dangad.

Who knows whom, from the top: a question (:mod:`~tests.benchmarks.echo`,
:mod:`~tests.benchmarks.cpu_bound`, :mod:`~tests.benchmarks.connections`,
:mod:`~tests.benchmarks.backlog`, :mod:`~tests.benchmarks.payload`,
:mod:`~tests.benchmarks.startup`, :mod:`~tests.benchmarks.starts`,
:mod:`~tests.benchmarks.recycling`, :mod:`~tests.benchmarks.stalls`,
:mod:`~tests.benchmarks.reactors`, :mod:`~tests.benchmarks.models`) measures
:mod:`~tests.benchmarks.contenders` by turns, through the :mod:`~tests.benchmarks.harness`. A
contender is some :mod:`~tests.benchmarks.processes`: a server, from
:mod:`tests.benchmarks.servers` or somebody else's, and a driver, from
:mod:`tests.benchmarks.drivers`, which is the client, takes the times and checks the answers. What
comes of it is held against :mod:`~tests.benchmarks.targets`, printed by
:mod:`~tests.benchmarks.table`, and put into the documentation by :mod:`~tests.benchmarks.publish`.
"""
