"""``twistd``, which writes down what objects there are in it whenever it gets SIGUSR2.

``python -m tests.countedserver CENSUS ...``: a JSON object into the file CENSUS, from the name
of each class of dangad to the number of its instances; the rest are twistd's own arguments. What
memory as a whole hides, such as a few connections that are never forgotten, is plain in it.
"""

import gc
import json
import os
import signal
import sys
from collections import Counter

from twisted.scripts.twistd import run

from dangad.host.quietlog import _Window
from dangad.operators.rates import Sample, Series
from dangad.scheduler import counters
from dangad.scheduler.quarantine import _Suspect
from dangad.scheduler.record import Attempt
from dangad.scheduler.workerhistory import Gone

_BOUNDED = (BaseException, Attempt, Gone, Sample, Series, _Suspect, _Window)
RECENT = 100
"""Jobs that it remembers after their end: so few that there are as many after any round."""


def write_census(path: str) -> None:
    """Count the living instances of dangad's classes, into the file `path`, at one stroke.

    Not of those whose number is bounded, and else a matter of chance: errors and lost attempts,
    which belong to the jobs that ended last, what is held against commands whose workers died,
    kinds of lines that were logged recently, workers that died last, and samples of the last
    minutes.
    """
    gc.collect()
    census = Counter(
        type(each).__qualname__
        for each in gc.get_objects()
        if str(type(each).__module__).startswith("dangad.") and not isinstance(each, _BOUNDED)
    )
    with open(f"{path}.new", "w") as file:
        json.dump(census, file)
    os.rename(f"{path}.new", path)


def main() -> None:
    """Run twistd."""
    census = sys.argv.pop(1)
    counters.RECENT = RECENT
    signal.signal(signal.SIGUSR2, lambda _number, _frame: write_census(census))
    run()


if __name__ == "__main__":
    main()
