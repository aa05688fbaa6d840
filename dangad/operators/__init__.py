"""How operators and service managers watch the server and control it.

- :mod:`.interfaces`: what operators may see and do.
- :mod:`.control`: the control endpoint, where operators connect; :mod:`.orders` has what each
  command does.
- :mod:`.view`: the operations that it offers, over all parts of the server.
- :mod:`.jobviews`, :mod:`.workerviews`, :mod:`.clientviews`, :mod:`.commandviews`: the documents
  about jobs, workers, clients and commands; :mod:`.filters` says which jobs are meant, and
  :mod:`.parts` divides the work on very many of them.
- :mod:`.rates`, :mod:`.events`: the figures of the last minutes, and what happens just now.
- :mod:`.handcalls`: jobs that operators call from the page.
- :mod:`.tracing`: spans of jobs for OpenTelemetry.
- :mod:`.systemd`: notifications to a service manager.
"""
