"""What `python -m bench.collect` does where tables and statistics are needed: parses, calls, prints, sets the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import answers, domainbed, files, reference
from bench.ablation import split_rows
from bench.arrange import ORDERS, parse_names
from bench.by_image import by_image
from bench.default_test import ESTIMANDS
from bench.errors import BenchError, SpecError
from bench.explain import explain
from bench.formats import RENDERERS
from bench.html_report import Origin, html, page_command
from bench.latex import latex
from bench.options import normalised
from bench.panels import OBSERVED
from bench.plots import plots_of, write_plots
from bench.printable import printable, printable_lines
from bench.provenance import trace
from bench.ranks import POSTHOCS
from bench.records import load
from bench.report import Options, Report, build_reports, left_out, shown_records
from bench.selection import DOMAINBED_RULES, RULES
from bench.stats import ERROR_BARS, FAMILIES

FORMATS = ("latex", *RENDERERS, "html", "domainbed")
_OF_ANSWERS = (
    *("results", "format", "selection", "datasets", "algorithms", "all_predictors", "against", "errorbars", "alpha"),
    *("estimand", "family", "effects", "posthoc", "plan", "metric", "rename", "order", "include_unfinished"),
)
"""Options whose answers hang on nothing but themselves and the results folder, so that they may be kept."""
_EXAMPLES = """examples:
  python -m bench.collect results/
  python -m bench.collect results/icons --format text --selection last --against ERM
  python -m bench.collect results/ --format csv --output numbers.csv
  python -m bench.collect results/ --format text --plan=1        what would settle a difference of one point
  python -m bench.collect results/ --explain PACS CLIPood Avg    the trials behind a number
  python -m bench.collect results/ --by-image --selection last   what the images of each domain say
  python -m bench.collect results/ --reference           our numbers beside the papers'
  python -m bench.collect results/ --html report.html    one page to look at, sort, filter and send
  python -m bench.collect DOMAINBED_SWEEP --format domainbed
"""


def run(arguments: Sequence[str]) -> int:
    """Run the command; give its exit code: 0, or 2 where the input is no good."""
    words = normalised(arguments)
    parser = _parser()
    options = parser.parse_args(words)
    is_kept = all(value == parser.get_default(name) for name, value in vars(options).items() if name not in _OF_ANSWERS)
    options.command = page_command(words)
    try:
        output, warnings = _collect(options)
        is_data = options.format in ("csv", "json", "html")  # these make their names safe in their own ways
        output = output if is_data else printable_lines(output)
        _write(output, options.output)
    except BenchError as error:
        print(printable(f"collect: {error}"), file=sys.stderr)
        return error.exit_code
    for warning in warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)
    if is_kept and options.format != "html":
        answers.remember(arguments, str(options.results), options.digest, answers.Answer(output, tuple(warnings)))
    return 0


def _collect(options: argparse.Namespace) -> tuple[str, Sequence[str]]:
    """Give the text to print, and the warnings."""
    _choose_page(options)
    options.format = options.format or ("latex" if options.reference is None else "text")
    _check(options)
    is_domainbed = options.format == "domainbed"
    results = load(options.results, include_unfinished=options.include_unfinished or is_domainbed)
    options.digest = results.digest
    results = split_rows(results, options.rows_by) if options.rows_by else results
    every_rule = is_domainbed or (options.format in ("csv", "json") and options.reference is None)
    rules = options.selection or (DOMAINBED_RULES if every_rule else DOMAINBED_RULES[:1])
    wished = Options(
        datasets=tuple(options.datasets),
        algorithms=tuple(options.algorithms),
        all_predictors=options.all_predictors,
        against=options.against,
        errorbars=options.errorbars,
        alpha=options.alpha,
        estimand=options.estimand,
        family=options.family,
        metrics=tuple(options.metric),
        names=parse_names(options.rename),
        order=options.order,
        posthoc=options.posthoc,
        effects=options.effects,
        plan=options.plan,
    )
    records = shown_records(results, wished)
    provenance = trace(records)
    if is_domainbed:
        return domainbed.collect(records, results.n_lines, rules), [
            *provenance.warnings,
            *left_out(results, provenance),
        ]
    reports = build_reports(results, rules, wished)
    if options.reference is not None:
        known = reference.read_references(options.reference)
        found = [reference.beside(report, known) for report in reports]
        return reference.RENDERERS[options.format](found), list(reports[0].warnings)
    if options.by_image:
        return by_image(reports, results.root), list(reports[0].warnings)
    if options.explain is not None:
        return explain(reports, results.root, *options.explain), list(reports[0].warnings)
    if options.plots is not None:
        return "", [*reports[0].warnings, *_plots(reports, records, options)]
    if options.format == "html":
        command, posthoc = options.command, options.posthoc
        origin = Origin(records=records, root=results.root, provenance=provenance, command=command, posthoc=posthoc)
        return html(reports, origin), list(reports[0].warnings)
    render = latex if options.format == "latex" else RENDERERS[options.format]
    # CSV has no footer: what others say there goes to standard error.
    unsaid = left_out(results, provenance) if options.format == "csv" else []
    return render(reports), [*reports[0].warnings, *unsaid]


def _plots(reports: Sequence[Report], records: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> list[str]:
    """Write the figures of all reports; give sentences on those that were refused."""
    made = [plots_of(report, records, options.posthoc) for report in reports]
    written = write_plots([plot for plots, _ in made for plot in plots], options.plots)
    print(f"{len(written)} files in {options.plots}", file=sys.stderr)
    return [note for _, notes in made for note in notes]


def _choose_page(options: argparse.Namespace) -> None:
    """Take `--html FILE` for what it stands for, `--format html --output FILE`.

    Raises:
        SpecError: another format or file is given too.
    """
    if options.html is not None:
        if options.format not in (None, "html") or options.output is not None:
            raise SpecError("--html FILE writes a page there and nothing else; leave out --format and --output")
        options.format, options.output = "html", options.html


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together.

    Raises:
        SpecError: it does not.
    """
    if options.format == "csv" and options.errorbars == "t95":
        raise SpecError("--format csv has a column for standard errors; --errorbars t95 is for the other formats")
    if options.plan is not None and options.estimand != "new-domains":
        raise SpecError("--plan asks how many domains or data sets are needed: it is for --estimand new-domains")
    if options.reference is not None:
        _check_reference(options)
    extras = {"posthoc": options.posthoc, "effects": options.effects or None, "plan": options.plan}
    instead = {"explain": options.explain, "by-image": options.by_image or None, "plots": options.plots}
    asked = [name for name, value in {**extras, **instead}.items() if value is not None]
    if sum(value is not None for value in instead.values()) > 1:
        raise SpecError("--explain, --by-image and --plots each stand in the place of tables; give one of them")
    if options.format == "html" and {*instead} & {*asked}:
        raise SpecError(
            "a page (--html) opens its cells and has its figures; leave out --explain, --by-image and --plots"
        )
    if asked and options.format in ("csv", "domainbed"):
        raise SpecError(f"--{asked[0]} has no place in --format {options.format}; use text, markdown, latex or json")


def _check_reference(options: argparse.Namespace) -> None:
    if options.format not in reference.RENDERERS:
        formats = ", ".join(reference.RENDERERS)
        raise SpecError(f"--reference has no place in --format {options.format}; use {formats}")
    for name in ("explain", "by-image", "plots", "posthoc", "effects", "plan", "rename"):
        value = getattr(options, name.replace("-", "_"))
        if value is not None and value is not False and value != []:
            raise SpecError(f"--reference and --{name} do not go together; leave one out")


def _write(output: str, path: Path | None) -> None:
    if path is not None:
        try:
            files.replace_text(path, output)
        except OSError as error:
            reason = f"cannot write {path}: {error.strerror}"
            raise BenchError(f"{reason}; give a file in a folder that exists") from None
        return
    answers.say(output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.collect",
        description="Print tables of results: CLIPBed's runs, DomainBed's sweeps, logs of CoOp and Dassl, CSV files.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "results",
        type=Path,
        help="results, sweep or run folder; CoOp's or Dassl's output; a CSV file (docs/imports.md)",
    )
    formats = "default: latex, with --reference text; domainbed = DomainBed's own text"
    add("--format", choices=FORMATS, help=formats)
    rules_help = "may be repeated; default: training-domain; for csv, json and domainbed all but last"
    add("--selection", choices=RULES, action="append", help=rules_help)
    add("--datasets", nargs="+", default=[], metavar="NAME", help="only these, in this order")
    add("--algorithms", nargs="+", default=[], metavar="NAME", help="only these, or these predictors, in this order")
    add("--all-predictors", action="store_true", help="show every predictor of a training, not only the main one")
    add("--against", metavar="NAME", help="row to compare with; default: ZeroShot, else ERM, else the first")
    errors = f"{_meanings(ERROR_BARS)}; default: stderr, for DomainBed's sweeps domainbed"
    add("--errorbars", choices=list(ERROR_BARS), help=errors)
    _add_statistics(parser)
    add("--metric", nargs="+", default=[], metavar="NAME", help="only these measures, e.g. base, new, H, AUROC")
    rows_by = "give trainings that differ in these hparams rows of their own: the rows of an ablation"
    add("--rows-by", nargs="+", default=[], metavar="HPARAM", help=rows_by)
    rename_help = "show rows, data sets or domains under other names"
    add("--rename", action="extend", nargs="+", default=[], metavar="OLD=NEW", help=rename_help)
    add("--order", choices=list(ORDERS), default="usual", help=f"of rows: {_meanings(ORDERS)}; default: usual")
    explain_help = "list the trials, steps, hparams and rule behind one number; DATASET may be Averages"
    add("--explain", nargs=3, metavar=("DATASET", "ROW", "COLUMN"), help=explain_help)
    by_image = "compare image by image on each domain, from stored predictions, and print no table (docs/statistics.md)"
    add("--by-image", action="store_true", help=by_image)
    plots_help = "write figures (PDF, PNG and their numbers as CSV) there, and print no table; needs matplotlib"
    add("--plots", type=Path, metavar="FOLDER", help=plots_help)
    reference_help = "print our numbers beside the papers', from CSV files; default: the checkout's results/reference"
    add("--reference", nargs="?", type=Path, const=reference.FOLDER, metavar="PLACE", help=reference_help)
    add("--include-unfinished", action="store_true", help="use runs that are not finished too (domainbed always does)")
    add("--html", type=Path, metavar="FILE", help="write one self-contained page there, and print no table")
    add("--output", type=Path, metavar="FILE", help="write there instead of to standard output")
    return parser


def _add_statistics(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("statistics", "what they mean: docs/statistics.md").add_argument
    add("--alpha", type=level, default=0.05, help="level of comparisons; default: 0.05")
    estimands = f"what comparisons speak of: {_meanings(ESTIMANDS)}; default: new-domains"
    add("--estimand", choices=list(ESTIMANDS), default="new-domains", help=estimands)
    families = f"p is adjusted within {_meanings(FAMILIES)}; default: metric, but base, new and harmonic mean together"
    add("--family", choices=list(FAMILIES), help=families)
    add("--effects", action="store_true", help="also P(better), rank-biserial correlation, Bayesian signed-rank test")
    posthoc = "also rank all rows and say which are not told apart, over six units or more; without a name %(const)s"
    add("--posthoc", nargs="?", choices=POSTHOCS, const=POSTHOCS[0], help=posthoc)
    plan = "also say how many domains or trials would settle a difference of so many points; without POINTS the observed one"
    add("--plan", nargs="?", type=points, const=OBSERVED, metavar="POINTS", help=plan)


def _meanings(of: Mapping[str, str]) -> str:
    return "; ".join(f"{name} = {meaning}" for name, meaning in of.items()).replace("%", "%%")


def points(words: str) -> float:
    """Read a difference in points, above 0."""
    number = float(words)
    if not 0 < number < 100:
        raise argparse.ArgumentTypeError(f"{words} is not a difference in points, between 0 and 100")
    return number


def level(words: str) -> float:
    """Read a level between 0 and 1."""
    level = float(words)
    if not 1e-9 <= level < 1:
        raise argparse.ArgumentTypeError(
            f"{words} is not between 0 and 1 (from 1e-9 on, which is as far as quantiles go)"
        )
    return level
