"""The options of ``twistd dangad`` that :func:`dangad.testing.serve` takes, by the same names.

:mod:`dangad.tap` reads the same options from a command line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from dangad.limits import FRESH, LEAN, LOG_FAILED, LOG_JOBS, PRELOADED, STARTS, Limits
from dangad.pool.launch import WorkerSettings, default_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

USUAL: Mapping[str, Any] = {"min_workers": 1, "max_workers": 2, "drain": 5.0}
"""The limits that differ from those of a server without options."""


@dataclass(frozen=True)
class ServerOptions:
    """The options of one server, besides its limits and the job modules."""

    start: str = LEAN
    """How workers start, one of :data:`dangad.limits.STARTS`."""
    preload: bool = False
    """Short for ``start="preloaded"``."""
    log_jobs: str = LOG_FAILED
    """Which jobs are logged, one of :data:`dangad.limits.LOG_JOBS`."""
    control: str | None = None
    """The endpoint for operators; None if they cannot connect."""
    worker_path: Sequence[str] = ()
    """Directories where workers look for modules first."""
    worker_directory: str | None = None
    """The workers' working directory; None for the test's."""
    worker_env: Mapping[str, str] = field(default_factory=dict)
    """Additional environment variables for workers."""
    worker_keep_env: Collection[str] = ()
    """The variables of the test's environment that workers keep; if there are none, all."""
    worker_nice: int = 0
    """How far workers yield to other processes, see nice(2)."""
    worker_umask: int | None = None
    """The workers' file mode mask; None for the test's."""
    worker_uid: int | None = None
    """The id of the user that workers run as; None for the test's. Only root may choose one."""
    worker_gid: int | None = None
    """The id of the group that workers run as; None for the test's. Only root may choose one."""

    def __post_init__(self) -> None:
        """Check the words among the options.

        :raises ValueError: there is no such word, or two ways to start workers are named.
        """
        if self.log_jobs not in LOG_JOBS:
            raise ValueError(f"log_jobs={self.log_jobs!r}: must be one of {', '.join(LOG_JOBS)}")
        if self.start not in STARTS:
            raise ValueError(f"start={self.start!r}: must be one of {', '.join(STARTS)}")
        if self.preload and self.start == FRESH:
            raise ValueError("preload: not with start='fresh', which shares nothing")

    def worker_settings(self, jobs: tuple[str, ...], limits: Limits) -> WorkerSettings:
        """The settings of workers that are started now, from the present path and environment."""
        keep = self.worker_keep_env
        kept = {name: value for name, value in os.environ.items() if not keep or name in keep}
        return WorkerSettings(
            jobs,
            limits.max_payload,
            path=(*map(os.path.abspath, self.worker_path), *default_path()),
            directory=self.worker_directory,
            environment={**kept, **self.worker_env},
            max_memory=limits.max_memory,
            recycle_memory=limits.recycle_memory,
            nice=self.worker_nice,
            umask=self.worker_umask,
            uid=self.worker_uid,
            gid=self.worker_gid,
            start=PRELOADED if self.preload else self.start,
            start_timeout=limits.start_timeout,
        )


def read_options(options: Mapping[str, Any]) -> tuple[Limits, ServerOptions]:
    """The limits and the other options.

    :raises TypeError: there is no option of that name.
    :raises ValueError: an option's value is not valid.
    """
    names = [{each.name for each in fields(kind)} for kind in (Limits, ServerOptions)]
    unknown = options.keys() - names[0] - names[1]
    if unknown:
        raise TypeError(f"serve() has no option {', '.join(sorted(unknown))}")
    limits, others = ({name: options[name] for name in options.keys() & each} for each in names)
    return Limits(**{**USUAL, **limits}), ServerOptions(**others)
