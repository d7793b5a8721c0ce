"""Zero-shot CLIP: no training at all."""

from __future__ import annotations

from collections.abc import Iterator

from bench.algorithm import EVALUATION_HPARAMS, Algorithm, Predictor, Setup
from bench.hparams import Hparam
from bench.models import TextHead, prompt_templates
from bench.registry import algorithms


@algorithms.register("ZeroShot")
class ZeroShot(Algorithm):
    """CLIP as it comes: logits = scale * cos(f(x), t_k) with t_k the text feature of "a photo of a <class>.".

    Paper: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
    section 3.1; several prompts are averaged as unit vectors and normalised again (section 3.1.4).
    Differs: nothing. By default the data set's single template, as CoOp and CLIPood use it; `prompt` =
    "ensemble80" gives OpenAI's ImageNet prompts.
    Run: `python -m bench.sweep launch --algorithms ZeroShot`; the README's table has the numbers to expect.
    """

    paper = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
    hparams = EVALUATION_HPARAMS
    steps = Hparam(0, "updates: there is nothing to train", low=0, high=0)

    def __init__(self, setup: Setup) -> None:
        """Make the text head."""
        super().__init__(setup)
        self.head = TextHead(self.backbone, prompt_templates(self.values["prompt"], setup.templates))

    def predictors(self, *, final: bool) -> Iterator[tuple[str, Predictor]]:
        """Yield the pre-trained tower under the text head."""
        yield "", Predictor(None, self.head)
