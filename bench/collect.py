"""`python -m bench.collect RESULTS`: records to tables. Parses, calls, prints, sets the exit code."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import domainbed, files
from bench.errors import BenchError, SpecError
from bench.formats import RENDERERS
from bench.latex import latex
from bench.options import normalised
from bench.provenance import trace
from bench.records import load
from bench.report import Options, build_reports, left_out, shown_records
from bench.selection import DOMAINBED_RULES, RULES
from bench.stats import ERROR_BARS

FORMATS = ("latex", *RENDERERS, "domainbed")
_EXAMPLES = """examples:
  python -m bench.collect results/
  python -m bench.collect results/icons --format text --selection last --against ERM
  python -m bench.collect results/ --format csv --output numbers.csv
  python -m bench.collect DOMAINBED_SWEEP --format domainbed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code: 0, or 2 where the input is no good."""
    options = _parser().parse_args(normalised(sys.argv[1:] if arguments is None else arguments))
    try:
        output, warnings = _collect(options)
        _write(output, options.output)
    except BenchError as error:
        print(f"collect: {error}", file=sys.stderr)
        return error.exit_code
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _collect(options: argparse.Namespace) -> tuple[str, Sequence[str]]:
    """Give the text to print, and the warnings."""
    is_domainbed = options.format == "domainbed"
    results = load(options.results, include_unfinished=options.include_unfinished or is_domainbed)
    every_rule = is_domainbed or options.format in ("csv", "json")
    rules = options.selection or (DOMAINBED_RULES if every_rule else DOMAINBED_RULES[:1])
    wished = Options(
        datasets=tuple(options.datasets),
        algorithms=tuple(options.algorithms),
        all_predictors=options.all_predictors,
        against=options.against,
        errorbars=options.errorbars,
        alpha=options.alpha,
    )
    records = shown_records(results, wished)
    provenance = trace(records)
    if is_domainbed:
        return domainbed.collect(records, results.n_lines, rules), [
            *provenance.warnings,
            *left_out(results, provenance),
        ]
    if options.format == "csv" and options.errorbars == "t95":
        raise SpecError("--format csv has a column for standard errors; --errorbars t95 is for the other formats")
    reports = build_reports(results, rules, wished)
    render = latex if options.format == "latex" else RENDERERS[options.format]
    # CSV has no footer: what others say there goes to standard error.
    unsaid = left_out(results, provenance) if options.format == "csv" else []
    return render(reports), [*reports[0].warnings, *unsaid]


def _write(output: str, path: Path | None) -> None:
    if path is not None:
        try:
            files.replace_text(path, output)
        except OSError as error:
            reason = f"cannot write {path}: {error.strerror}"
            raise BenchError(f"{reason}; give --output a file in a folder that exists") from None
        return
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal without ± shows a question mark, not a traceback
        sys.stdout.write(output)
        sys.stdout.flush()
    except BrokenPipeError:
        # `collect … | head` closes early; keep the interpreter from complaining at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.collect",
        description="Print the tables of a results folder: CLIPBed's runs, DomainBed's sweeps, or both.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("results", type=Path, help="results folder, sweep folder or run folder")
    add("--format", choices=FORMATS, default="latex", help="default: latex; domainbed = DomainBed's own text")
    rules_help = "may be repeated; default: training-domain; for csv, json and domainbed all but last"
    add("--selection", choices=RULES, action="append", help=rules_help)
    add("--datasets", nargs="+", default=[], metavar="NAME", help="only these, in this order")
    add("--algorithms", nargs="+", default=[], metavar="NAME", help="only these, or these predictors, in this order")
    add("--all-predictors", action="store_true", help="show every predictor of a training, not only the main one")
    add("--against", metavar="NAME", help="row to compare with; default: ZeroShot, else ERM, else the first")
    errors = "; ".join(f"{name} = {meaning}" for name, meaning in ERROR_BARS.items()).replace("%", "%%")
    add("--errorbars", choices=list(ERROR_BARS), help=f"{errors}; default: stderr, for DomainBed's sweeps domainbed")
    add("--alpha", type=level, default=0.05, help="level of comparisons; default: 0.05")
    add("--include-unfinished", action="store_true", help="use runs that are not finished too (domainbed always does)")
    add("--output", type=Path, metavar="FILE", help="write there instead of to standard output")
    return parser


def level(words: str) -> float:
    """Read a level between 0 and 1."""
    level = float(words)
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"{words} is not between 0 and 1")
    return level


if __name__ == "__main__":
    sys.exit(main())
