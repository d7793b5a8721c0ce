"""`python -m bench.collect RESULTS`: records to tables.

Two questions are answered without loading what statistics need, which takes longer than reading a small sweep: one that
was asked before of the same files, and DomainBed's own text. All others go to `bench.collecting`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from bench import answers
from bench.errors import BenchError
from bench.printable import printable, printable_lines

_FORMAT = ["--format", "domainbed"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code: 0, or 2 where the input is no good."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        answer = answers.recall(words) or _domainbed_text(words)
    except BenchError as error:
        print(printable(f"collect: {error}"), file=sys.stderr)
        return error.exit_code
    if answer is None:
        from bench.collecting import run

        return run(words)
    answers.say(answer.output)
    for warning in answer.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _domainbed_text(words: Sequence[str]) -> answers.Answer | None:
    """Answer `RESULTS --format domainbed`, in either order; None for any other question."""
    if len(words) != 3 or "--format" not in words[:2]:
        return None
    place = words[0] if words[1] == "--format" else words[2]
    if place.startswith("-") or list(words) not in ([place, *_FORMAT], [*_FORMAT, place]):
        return None
    from pathlib import Path

    from bench.domainbed.text import collect
    from bench.provenance import trace
    from bench.records import load

    results = load(Path(place), include_unfinished=True)
    records = [record for record in results.records if record["predictor"] == record["algorithm"]]
    last = {(record["trial"], record["predictor"]): record for record in records}
    provenance = trace([*last.values()])  # the records of a training share their origin
    output = printable_lines(collect(records, results.n_lines))
    warnings = list(provenance.warnings)
    if results.leaves_out or provenance.bad_images:
        from bench.report import left_out

        warnings += left_out(results, provenance)
    answer = answers.Answer(output, tuple(map(printable, warnings)))
    answers.remember(words, place, results.digest, answer)
    return answer


if __name__ == "__main__":
    gc.disable()  # the records of a large sweep are no garbage, and walking through them takes as long as reading some
    sys.exit(main())
