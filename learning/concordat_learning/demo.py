"""The demo federation's model and data: `python -m concordat_learning.demo base|data|reference`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from concordat_learning import digits
from concordat_learning.entry import prepare_environment
from concordat_learning.errors import InputError, LearningError


def main(argv: Sequence[str] | None = None) -> int:
    """Return the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="concordat_learning.demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    base = commands.add_parser("base", help="pre-train the base package and make the first adapter")
    data = commands.add_parser("data", help="write the data of one site, of the evaluator, or of the canary check")
    data.add_argument("--part", required=True, help="site-a … site-e, evaluator, or canary")
    reference = commands.add_parser("reference", help="accuracies of training without a federation")
    reference.add_argument("--rounds", type=int, default=1, help="rounds to compare with")
    reference.add_argument("--json", type=Path, required=True, help="file to write")
    for command in (base, data):
        command.add_argument("--out", type=Path, required=True, help="folder to write to")
    for command in (base, data, reference):
        command.add_argument("--seed", type=int, default=0, help="seed of the split and of all training")
    flags = parser.parse_args(argv)
    prepare_environment()
    try:
        _COMMANDS[flags.command](flags)
    except (ValueError, LearningError) as error:
        print(error, file=sys.stderr)
        return error.code if isinstance(error, LearningError) else InputError.code
    return 0


def _base(flags: argparse.Namespace) -> None:
    from concordat_learning import demo_model

    everything = digits.digits()
    split = digits.partition(everything.labels, flags.seed)
    demo_model.write_base(flags.out, everything.take(split.public), flags.seed)


def _data(flags: argparse.Namespace) -> None:
    everything = digits.digits()
    split = digits.partition(everything.labels, flags.seed)
    for name, count in digits.write_part(flags.part, flags.out, everything, split).items():
        print(f"{flags.part}: {count} examples in {name}")


def _reference(flags: argparse.Namespace) -> None:
    from concordat_learning import demo_reference

    flags.json.parent.mkdir(parents=True, exist_ok=True)
    metrics = demo_reference.reference(flags.seed, flags.rounds)
    flags.json.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    print(json.dumps(metrics, sort_keys=True))


_COMMANDS = {"base": _base, "data": _data, "reference": _reference}

if __name__ == "__main__":
    sys.exit(main())
