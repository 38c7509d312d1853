"""From labelled rows to the folder that ships, in stages that can be taken up again.

    vocabulary -> grams, phrase, word (independent) -> orders, calibrate -> export

Every stage leaves a file in the output folder; a finished stage is not run again, and a fit that
was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from langchain_safeguard.embedded.branches import PhraseBranch, WordBranch
from langchain_safeguard.embedded.engine import WindowEngine
from langchain_safeguard.training import heldout, pretrained
from langchain_safeguard.training.derived import as_inputs
from langchain_safeguard.training.encode import phrase_batch, word_batch
from langchain_safeguard.training.export import Mix, branch_state, even_mix, export
from langchain_safeguard.training.fit import FitSettings, Fitter
from langchain_safeguard.training.grams import fit_grams
from langchain_safeguard.training.orders import fit_orders
from langchain_safeguard.training.prose import pair_rows, prose_rows
from langchain_safeguard.training.rows import Row, held_out, read_folder
from langchain_safeguard.training.vocabulary import choose_pieces

GRAM_BITS = 19


@dataclass(frozen=True)
class Plan:
    """What to train on and for how long.

    Attributes:
        data: Folder of labelled rows; folders named `dev` in it are left out.
        out: Folder for checkpoints; the result is in its sub-folder `weights`.
        word_rows: Rows that the word branch sees in all (an epoch is about 50,000).
        phrase_rows: Rows that the phrase branch sees in all (an epoch is about 70,000).
        prose: Add the prose and pairs written for this project.
        seed: Of everything random.
    """

    data: Path
    out: Path
    word_rows: int = 55_000
    phrase_rows: int = 125_000
    prose: bool = True
    seed: int = 7


class Pipeline:
    """Runs the stages of a plan."""

    def __init__(self, plan: Plan) -> None:
        plan.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(plan.seed)
        self.plan = plan
        rows = read_folder(plan.data)
        rows += list(as_inputs(rows))
        if plan.prose:
            rows += [*prose_rows(), *pair_rows()]
        self.train = [row for row in rows if not held_out(row)]
        self.held = [row for row in rows if held_out(row)]

    def run(self) -> str:
        """All stages; returns the checksum of the weights in `out/weights`."""
        grams, phrase, word = self.grams(), self.phrase(), self.word()
        branches = {"word": word, "phrase": phrase, "grams": grams}
        mix = self.calibrate(branches)
        return export(self.plan.out / "weights", branches, mix, self.tokenizers(), self.orders())

    def kept(self) -> Tensor:
        """Ids of the pieces that are kept."""
        path = self.plan.out / "pieces.pt"
        if not path.exists():
            pieces, charsmap = pretrained.phrase_vocabulary()
            english = frozenset(pretrained.word_encoder()[1].get_vocab())
            whole = pretrained.phrase_tokenizer(pieces, charsmap)
            torch.save(choose_pieces(pieces, whole, self.train, english), path)
        kept: Tensor = torch.load(path, weights_only=True)
        return kept

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """WordPiece, and SentencePiece with the kept pieces only."""
        pieces, charsmap = pretrained.phrase_vocabulary()
        chosen = [pieces[number] for number in self.kept().tolist()]
        return pretrained.word_encoder()[1], pretrained.phrase_tokenizer(chosen, charsmap)

    def grams(self) -> dict[str, Tensor]:
        """The n-gram model's state."""
        path = self.plan.out / "grams.pt"
        if not path.exists():
            print("grams: fitting", flush=True)
            torch.save(fit_grams(self.train, GRAM_BITS, self.plan.seed), path)
        state: dict[str, Tensor] = torch.load(path, weights_only=True)
        return state

    def orders(self) -> dict[str, Tensor]:
        """The order model's state."""
        path = self.plan.out / "orders.pt"
        if not path.exists():
            print("orders: fitting", flush=True)
            branch = WordBranch(pretrained.word_encoder()[0])
            branch.load_state_dict(self.word())
            words, pieces = self.tokenizers()
            torch.save(fit_orders(self.train, pieces, branch, words, self.plan.seed), path)
        state: dict[str, Tensor] = torch.load(path, weights_only=True)
        return state

    def phrase(self) -> dict[str, Tensor]:
        """The phrase branch's state, fitted on all rows."""
        encoder = pretrained.phrase_encoder(self.kept())
        table = encoder.pieces
        # Forty thousand rows, of which a batch touches a thousand.
        if isinstance(table, nn.Embedding):
            table.sparse = True
        settings = FitSettings(
            self.plan.phrase_rows, 4e-4, 1e-3, tokens=3000, limit=192, seed=self.plan.seed
        )
        path = self.plan.out / "phrase.pt"
        tokenizer = self.tokenizers()[1]
        fitter = Fitter(PhraseBranch(encoder), tokenizer, phrase_batch, self.train, settings, path)
        return self._fitted(fitter)

    def word(self) -> dict[str, Tensor]:
        """The word branch's state, fitted on rows that are not Korean."""
        encoder, tokenizer = pretrained.word_encoder()
        # The token table is half of the parameters and needs no tuning.
        encoder.words.requires_grad_(False)
        settings = FitSettings(
            self.plan.word_rows, 1e-4, 1e-3, limit=160, prompt_limit=56, seed=self.plan.seed
        )
        rows = [row for row in self.train if not row.korean]
        path = self.plan.out / "word.pt"
        return self._fitted(
            Fitter(WordBranch(encoder), tokenizer, word_batch, rows, settings, path)
        )

    def calibrate(self, branches: dict[str, dict[str, Tensor]]) -> Mix:
        """Mixing weights, fitted on the held-out rows."""
        path = self.plan.out / "mix.pt"
        if not path.exists():
            draft = self.plan.out / "draft"
            export(draft, branches, even_mix(), self.tokenizers(), self.orders())
            rows: list[Row] = heldout.sample(self.held)
            print(f"calibrate: {len(rows)} held-out rows", flush=True)
            held = heldout.look(WindowEngine.load(draft), rows)
            torch.save(heldout.fit(held, heldout.natural_weights(rows, self.held)), path)
        mix: Mix = torch.load(path, weights_only=True)
        return mix

    @staticmethod
    def _fitted(fitter: Fitter) -> dict[str, Tensor]:
        fitter.resume()
        fitter.run()
        return branch_state(fitter.path)
