"""The options of a server, from a command line or a file, and back to a file.

- :mod:`~dangad.options.commandline` has the options of ``twistd dangad``;
  :mod:`~dangad.options.values` parses their texts, and :mod:`~dangad.options.logoptions` has those
  about the log.
- :mod:`~dangad.options.configfile` reads a configuration file, and merges it with the command line.
- :mod:`~dangad.options.configuration` tells which options are in effect, for ``dangad config``.
"""
