"""Runs checks one after the other and says what came of each."""
import sys
import traceback


class Checks:
    def __init__(self):
        self.failed = 0

    def run(self, name, check):
        try:
            check()
            print(f"ok {name}", flush=True)
        except Exception as error:  # whatever goes wrong is what the check has found
            self.failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f"FAILED {name}: line {where.lineno}: {type(error).__name__}: {str(error)[:600]}", flush=True)

    def end(self):
        sys.exit(1 if self.failed else 0)


def equal(seen, wanted):
    if seen != wanted:
        raise AssertionError(f"{str(seen)[:200]!r} is not {str(wanted)[:200]!r}")
