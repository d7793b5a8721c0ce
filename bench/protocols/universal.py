"""Universal: adaptation to unlabelled images whose classes are known in part, as UEO tests it."""

from __future__ import annotations

from dataclasses import replace

from bench.dataset import Dataset, plain_name
from bench.errors import SpecError
from bench.hparams import Hparam
from bench.metrics import DETECTION, OOD_SCORES
from bench.protocols import Protocol, Task, View, make_view, no_pairs, of_classes, overlap
from bench.registry import protocols
from bench.spec import TrialSpec
from bench.splits import universal_split

SETTINGS = ("closed", "partial", "open", "open_partial")
METRICS = ("acc", "balanced_acc", "auroc", "fpr95", "aupr")


class Universal(Protocol):
    """Train on unlabelled images of one domain, given the names of some classes; test known classes and detect others.

    Classes are numbered in the case-insensitive alphabetical order of their names, `_`, `-` and spaces left out. The
    first so many names are known; they are the label space of training and tests. Which classes the unlabelled images
    are of is the option `setting`: "closed" the known ones, "partial" some of them, "open" the known ones and some
    unknown ones, "open_partial" some of both. The tests are on images of all classes, so they hold unknown classes in
    every setting. Index splits of Office31, OfficeHome, VisDA-C and DomainNet are UEO's; for another data set of at
    least five classes they follow a rule of ours (`bench.splits.universal_split`).

    Views: `env{d}_train` (without labels) and `env{d}_test`. A data set with published train and test splits (DomainNet's
    lists) uses them; in the others the training images are among the tested ones, and tables mark the method [t]. With
    `evaluate="all"` the training images are evaluated too (UEO's "Tar-train").

    Tables show, of the known classes, accuracy and mean per-class accuracy (UEO's ACC), and for telling known from
    unknown images AUROC, FPR95 and AUPR, known being the positive class. There is no labelled image to select on, so
    the last step is reported under every selection rule.

    Option `ood_score`, high = known: "mcm" = largest probability of the softmax of bare cosines, without CLIP's factor
    100, as UEO's code has it; "msp" with the factor; "max_logit"; "energy" = log-sum-exp; "neg_entropy".
    The seeds change batches and augmentation alone. Methods that train on labelled images have none here.
    """

    name = "universal"
    version = 1
    summary = (
        "unlabelled training with some class names: closed, partial, open, open-partial; unknown classes in the tests"
    )
    source = (
        "Liang et al., Realistic Unsupervised CLIP Fine-tuning with Universal Entropy Optimization, ICML 2024 (UEO)"
    )
    options = {
        "setting": Hparam("closed", "classes of the unlabelled images", choices=SETTINGS),
        "ood_score": Hparam("mcm", "how known an image looks (UEO: mcm)", choices=tuple(OOD_SCORES)),
    }
    required = frozenset({"setting"})
    unused = frozenset({"transfer_to", "unlabeled", "uda_holdout_fraction", "holdout_fraction"})

    def held_out(self, n_domains: int, *, pairs: bool = False) -> list[tuple[int, ...]]:
        """List every single domain: the one that is adapted to and tested on."""
        if pairs:
            raise no_pairs(self)
        return [(domain,) for domain in range(n_domains)]

    def task(self, dataset: Dataset, spec: TrialSpec, *, needs_unlabeled: bool = False) -> Task:
        """Make the task of one trial."""
        if len(spec.test_domains) != 1 or not 0 <= spec.test_domains[0] < len(dataset.domains):
            raise SpecError(
                f"test_domains={list(spec.test_domains)} does not fit {self.name} on {dataset.name}: it takes one domain "
                f"from 0 to {len(dataset.domains) - 1} a trial"
            )
        (domain,) = spec.test_domains
        order = sorted(range(len(dataset.class_names)), key=lambda each: plain_name(dataset.class_names[each]))
        split = universal_split(dataset.name, len(order))
        known = [order[each] for each in split.known]
        whole = range(len(dataset.domains[domain].files))
        is_published = {"train", "test"} <= set(dataset.splits)
        seen = dataset.splits["train"][domain] if is_published else whole
        tested = dataset.splits["test"][domain] if is_published else whole
        present = [order[each] for each in getattr(split, self.option(spec, "setting"))]
        train = make_view(dataset, domain, of_classes(dataset, domain, seen, present), f"env{domain}_train", known)
        test = make_view(dataset, domain, tested, f"env{domain}_test", known)
        score = self.option(spec, "ood_score")
        return Task(
            class_names=test.class_names,
            train=(),
            unlabeled=(train,) if needs_unlabeled else (),
            evaluation=(_measured(test, score),),
            further=(_measured(train, score),) if spec.evaluate == "all" else (),
            transductive=needs_unlabeled and overlap([train], [test]),
        )


def _measured(view: View, score: str) -> View:
    """Ask for detection as well where there is something to detect."""
    if view.is_known.all():
        return replace(view, metrics=tuple(name for name in METRICS if name not in DETECTION))
    return replace(view, metrics=METRICS, ood_score=score)


protocols.add(Universal.name, Universal())
