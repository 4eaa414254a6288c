"""Run all benchmarks, one after the other: ``python -m benchmarks [--quick] [--only training access]``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.report import ROOT, progress

# Short ones first: what they find shows early.
NAMES = ("startup", "onnx_answers", "access", "roofline", "training", "time_to_solve")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line names; the status is 1 if any failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run all benchmarks; other options go to each of them, such as --quick, --output or --threads.",
        allow_abbrev=False,
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", action="store_true", help="print one JSON object with a result for each benchmark")
    options, passed_on = parser.parse_known_args(argv)
    results, failed = {}, []
    for name in options.only:
        progress(f"== {name}")
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--json"] if options.json else []), *passed_on]
        finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if finished.returncode:
            failed.append(name)
        elif options.json:
            results[name] = json.loads(finished.stdout)
        else:
            print(finished.stdout, flush=True)
    if options.json:
        print(json.dumps(results, indent=2))
    if failed:
        progress(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
