"""Recall, precision and throughput of the scrubbing of texts, on notes with planted identifiers.

Recall counts an identifier as found where every letter and digit of it is taken out. Precision is the
share of what is taken out that touches an identifier. Intervals are Wilson's, 95 %. Throughput is per
second of processor time, on one thread. ``--notes`` writes the notes for other programs, ``--spans``
measures what such a program found: one JSON list of ``[note, start, end]`` in characters. ``--sentences``
takes others than those on which the rules were tried while they were written. Usage::

    POLARS_MAX_THREADS=1 python tests/bench/bench_scrub.py --patients 400 --notes-each 5

"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import polars as pl
from planted_notes import FRESH, SENTENCES, UNSEEN, Corpus, make_corpus

from cohortflow.cli.console import print_json, print_table
from cohortflow.model import Catalog
from cohortflow.patterns import load_patterns
from cohortflow.redaction.leaks import collect_facts
from cohortflow.redaction.scrub import TextScrubber, collect_identities, load_lexicon

MILLION = 1_000_000
SETS = {"tried": SENTENCES, "second": UNSEEN, "kept-apart": FRESH}
Z = 1.959964
Span = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Share:
    """A share with what it is of."""

    name: str
    hits: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of 95 %."""
        if not self.total:
            return 0.0, 1.0
        share, spread = self.hits / self.total, Z * Z / self.total
        middle = (share + spread / 2) / (1 + spread)
        half = Z / (1 + spread) * math.sqrt(share * (1 - share) / self.total + spread / (4 * self.total))
        return max(0.0, middle - half), min(1.0, middle + half)

    def row(self) -> list[str]:
        """Return what a table shows."""
        low, high = self.interval
        share = self.hits / self.total if self.total else 0.0
        return [
            self.name,
            f"{self.hits}/{self.total}",
            f"{100 * share:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
        ]


def make_scrubber(corpus: Corpus) -> TextScrubber:
    """Make a scrubber that knows what the raw zone of the corpus says."""
    catalog = Catalog.default()
    with tempfile.TemporaryDirectory() as folder:
        files = corpus.write_raw_zone(Path(folder))
        facts = pl.concat([collect_facts(kind, paths) for kind, paths in files.items()]).unique()
    lexicon = load_lexicon(catalog)
    known = collect_identities(facts, lexicon)
    return TextScrubber(known, lexicon, load_patterns(catalog).select(hipaa=True))


def find_spans(scrubber: TextScrubber, corpus: Corpus) -> list[Span]:
    """Return what a scrubber takes out, in characters."""
    spans = scrubber.find(pl.Series(corpus.notes), pl.Series(corpus.subjects))
    found = []
    for note, start, end in spans.select("row", "start", "end").iter_rows():
        data = corpus.notes[note].encode()
        found.append((note, len(data[:start].decode()), len(data[:end].decode())))
    return found


def measure(corpus: Corpus, spans: list[Span]) -> tuple[list[Share], list[Share]]:
    """Return recall by kind of identifier, and precision with the decoys that stayed whole."""
    covered: dict[int, set[int]] = defaultdict(set)
    for note, start, end in spans:
        covered[note].update(range(start, end))
    hits: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    sensitive: dict[int, set[int]] = defaultdict(set)
    for item in corpus.planted:
        places = {place for place in range(item.start, item.end) if corpus.notes[item.note][place].isalnum()}
        sensitive[item.note] |= places
        totals[item.kind] += 1
        hits[item.kind] += places <= covered[item.note]
    recall = [Share(kind, hits[kind], totals[kind]) for kind in sorted(totals)]
    recall.append(Share("all", sum(hits.values()), sum(totals.values())))
    right = sum(1 for note, start, end in spans if sensitive[note] & set(range(start, end)))
    whole = sum(1 for item in corpus.decoys if not covered[item.note] & set(range(item.start, item.end)))
    precision = [
        Share("of what is taken out, identifiers", right, len(spans)),
        Share("decoy sentences left whole", whole, len(corpus.decoys)),
    ]
    return recall, precision


def list_misses(corpus: Corpus, spans: list[Span], limit: int) -> None:
    """Print planted identifiers that were missed and decoys that were touched; all of them are invented."""
    covered: dict[int, set[int]] = defaultdict(set)
    for note, start, end in spans:
        covered[note].update(range(start, end))
    shown: Counter[str] = Counter()
    for item in corpus.planted:
        text = corpus.notes[item.note]
        if any(text[p].isalnum() and p not in covered[item.note] for p in range(item.start, item.end)):
            shown[item.kind] += 1
            if shown[item.kind] <= limit:
                print(f"missed {item.kind}: {text[max(0, item.start - 30) : item.end + 20]!r}")  # noqa: T201
    touched = Counter(
        (item.text, corpus.notes[note][start:end])
        for note, start, end in spans
        for item in corpus.decoys
        if item.note == note and item.start < end and start < item.end
    )
    for (decoy, found), count in touched.most_common(limit * 4):
        print(f"touched {count}: {decoy!r} by {found!r}")  # noqa: T201


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=400)
    parser.add_argument("--notes-each", type=int, default=5)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--sentences", choices=sorted(SETS), default="tried", help="which sentences to take")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--misses", type=int, default=0, help="print so many misses of each kind")
    parser.add_argument("--notes", type=Path, help="write the notes as a JSON list of texts")
    parser.add_argument("--spans", type=Path, help="measure what another program found")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sentences = SETS[options.sentences]
    corpus = make_corpus(options.patients, options.notes_each, options.seed, sentences)
    if options.notes:
        options.notes.write_text(json.dumps(corpus.notes), encoding="utf-8")
        return
    speed = 0.0
    if options.spans:
        spans = [
            (note, start, end) for note, start, end in json.loads(options.spans.read_text(encoding="utf-8"))
        ]
    else:
        scrubber = make_scrubber(corpus)
        spans = find_spans(scrubber, corpus)
        texts, subjects = pl.Series(corpus.notes), pl.Series(corpus.subjects)
        times = []
        for _ in range(options.repeat):
            start = time.process_time()
            scrubber.scrub(texts, subjects)
            times.append(time.process_time() - start)
        speed = sum(len(note.encode()) for note in corpus.notes) / MILLION / min(times)
    recall, precision = measure(corpus, spans)
    if options.misses:
        list_misses(corpus, spans, options.misses)
    machine = {"python": platform.python_version(), "polars": pl.__version__, "cpus": os.cpu_count()}
    if options.json:
        shares = [dataclasses.asdict(share) for share in (*recall, *precision)]
        print_json(
            {"machine": machine, "notes": len(corpus.notes), "megabytes_per_second": speed, "shares": shares}
        )
        return
    print_table(
        f"Recall on {len(corpus.notes)} notes",
        ["identifier", "found", "%", "95 %"],
        [s.row() for s in recall],
    )
    print_table(f"Precision; {speed:.1f} MB/s", ["what", "count", "%", "95 %"], [s.row() for s in precision])


if __name__ == "__main__":
    main()
