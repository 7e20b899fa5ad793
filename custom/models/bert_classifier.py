# Copyright (c) 2026 the FLARE job bundle authors. Licensed under the Apache License, Version 2.0.
"""A Hugging Face encoder with a classification head; BERT is Devlin et al. 2018, https://arxiv.org/abs/1810.04805."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig

from custom.data.tokenizer import EMBEDDED_LENGTH, load_tokenizer, vocabulary
from custom.errors import BundleError
from custom.models.encoder_config import longest_text, read_config
from custom.models.pretrained import AGREES, EMBEDDED, find_pretrained, quiet, reading

EVALUATION_ROWS = 64  # at a time in evaluation, where a batch of long texts would take gigabytes
HEAD_FILE = "classification_head.safetensors"
INITIAL_STD = 0.02  # as in BERT
PRETRAINED_LR, SCRATCH_LR = 5e-5, 1e-3  # of AdamW; the first as in Devlin et al., the second found by trial

_OF_A_LAYER = re.compile(r"(^|[.])layers?[.]\d+[.]")

Named = Sequence[tuple[str, nn.Parameter]]

logger = logging.getLogger(__name__)


class BertClassifier(nn.Module):
    """Token numbers of shape (batch, length) to logits of shape (batch, num_classes).

    New weights depend on torch's CPU seed and on nothing else, bit for bit. A constructor that raises would end the
    FLARE process, so what goes wrong here is kept, and raised by the first `forward`: that is before any training.

    Attributes:
        suggested_lr: a learning rate that AdamW fine-tunes the encoder well with, or trains the embedded one.

    Args:
        model_name_or_path: a folder, a name on the Hub, or `embedded`: see `custom.models.pretrained`. The embedded
            encoder has 2 layers of 64 values, and begins untrained.
        num_classes: width of the head.
        on_missing: when the Hub does not answer, take the `embedded` encoder with a warning, or make it an `error`.
        pooling: `mean` of the last layer and a linear head; or `pooler`, the head that transformers itself has for
            this encoder, which AutoModelForSequenceClassification can read from what `save_pretrained` writes.
        dropout: before the head of `mean`.
    """

    agrees = AGREES

    def __init__(
        self,
        model_name_or_path: str = "google-bert/bert-base-cased",
        num_classes: int = 4,
        on_missing: str = "embedded",
        pooling: str = "pooler",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.model_name_or_path, self.on_missing, self.pooling = model_name_or_path, on_missing, pooling
        self._failure: BundleError | None = None
        self._has_run = False
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        folder: Path | None = None
        try:
            _check(num_classes, pooling, dropout)
            folder = find_pretrained(model_name_or_path, on_missing)
            self.encoder, new = _embedded(num_classes, pooling) if not folder else _read(folder, num_classes, pooling)
        except BundleError as error:
            self._failure, folder, num_classes, dropout, self.pooling = error, None, 1, 0.0, "mean"
            self.encoder, new = _embedded(num_classes, self.pooling)
        self.suggested_lr = PRETRAINED_LR if folder else SCRATCH_LR
        self.dropout, self.head = nn.Dropout(dropout), None
        if self.pooling == "mean":
            self.encoder.pooler = None  # else its weights would be sent, and never trained
            self.head = nn.Linear(self.encoder.config.hidden_size, num_classes)
            new = [*new, *self.head.named_parameters()]
        _draw(new, generator)
        if folder and self.head:
            try:
                _read_head(self.head, folder / HEAD_FILE)
            except BundleError as error:
                self._failure = error
        if not folder and not self._failure:
            instead = "" if model_name_or_path == EMBEDDED else f", NOT {model_name_or_path}"
            logger.warning("TRAINING THE SMALL EMBEDDED BERT FROM SCRATCH%s", instead)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits; the loss adds the softmax.

        Args:
            inputs: `input_ids` and `attention_mask`, int64 of shape (batch, length), padded on the right.

        Raises:
            BundleError: the encoder could not be read, or is of another kind than the tokenizer.
        """
        if self._failure is not None:
            raise self._failure
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        self._check_fits(ids)
        if self.training or len(ids) <= EVALUATION_ROWS:
            return self._logits(ids, mask)
        logits = []
        for few, few_mask in zip(ids.split(EVALUATION_ROWS), mask.split(EVALUATION_ROWS), strict=True):
            longest = int(few_mask.sum(1).max())
            logits.append(self._logits(few[:, :longest], few_mask[:, :longest]))
        return torch.cat(logits)

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        outputs = self.encoder(input_ids=ids, attention_mask=mask)
        if self.head is None:
            return outputs.logits
        weight = mask[:, :, None].to(outputs.last_hidden_state.dtype)
        mean = (outputs.last_hidden_state * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        return self.head(self.dropout(mean))

    def _check_fits(self, ids: torch.Tensor) -> None:
        """A look-up out of range ends in an IndexError, or on CUDA in a state that only a new process leaves."""
        config = self.encoder.config
        if ids.shape[1] > (longest := longest_text(config) or ids.shape[1]):
            raise BundleError(
                code="setting-value",
                key="max_length",
                expected=f"at most {longest} for this encoder",
                got=ids.shape[1],
                remedy=f"set max_length={longest}",
            )
        if ids.is_cuda and self._has_run:
            return  # the tokenizer is still the same, and the answer would hold up the device
        self._has_run = True
        if ids.numel() and (largest := int(ids.max())) >= config.vocab_size:
            raise BundleError(
                "the tokenizer is not that of the encoder",
                code="encoder-unfit",
                key="model_name_or_path",
                expected=f"token numbers below {config.vocab_size}",
                got=largest,
                remedy="give `data` and `model` the same model_name_or_path",
            )


def save_pretrained(model: BertClassifier, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Writes encoder, tokenizer and configuration as a Hugging Face folder, which `BertClassifier` reads as well.

    With the pooling `mean` the head, for which transformers has no class, is in `classification_head.safetensors`.

    Args:
        model: built as in the job.
        folder: made if it is not there.
        weights: a state_dict to take in place of the model's, such as `to_tensors(load_weights(FL_global_model.pt))`.

    Raises:
        BundleError: the weights are not those of such a model, or the encoder or its tokenizer could not be read.
    """
    if model._failure is not None:
        raise model._failure
    if weights is not None:
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(
                "the weights are not those of this model",
                code="encoder-unfit",
                key="model_name_or_path",
                got=str(error).splitlines()[1].strip(),
                remedy="give the model_name_or_path, num_classes and pooling of the job",
            ) from error
    tokenizer = load_tokenizer(model.model_name_or_path, model.on_missing)
    with quiet():
        model.encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if model.head is not None:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in model.head.state_dict().items()},
            Path(folder) / HEAD_FILE,
        )


def _check(num_classes: object, pooling: object, dropout: object) -> None:
    if type(num_classes) is not int or num_classes < 2:
        raise BundleError(
            code="setting-value", key="num_classes", expected="an integer of at least 2", got=repr(num_classes)
        )
    if pooling not in ("mean", "pooler"):
        raise BundleError(code="setting-value", key="pooling", expected="one of mean, pooler", got=repr(pooling))
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise BundleError(code="setting-value", key="dropout", expected="a number from 0 to below 1", got=repr(dropout))


def _embedded(num_classes: int, pooling: str) -> tuple[Any, Named]:
    """An encoder for the embedded tokenizer, and all its parameters, which are to be drawn."""
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=EMBEDDED_LENGTH,
    )
    config.num_labels = num_classes
    encoder = _auto(pooling).from_config(config)
    return encoder, list(encoder.named_parameters())


def _read(folder: Path, num_classes: int, pooling: str) -> tuple[Any, Named]:
    """The encoder in `folder`, and those parameters of its head that are not there."""
    read_config(folder)
    with reading("encoder", folder, "it needs config.json and model.safetensors, whole"):
        encoder, found = _auto(pooling).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            num_labels=num_classes,
            ignore_mismatched_sizes=True,
        )
    missing = {*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])}
    new = [(name, parameter) for name, parameter in encoder.named_parameters() if name in missing]
    body = f"{encoder.base_model_prefix}." if pooling == "pooler" else ""
    for name, _ in new:
        if name.startswith(body) and not name.removeprefix(body).startswith("pooler."):
            raise _other_file(folder, name, "is missing, or of another shape than config.json says")
    for name in found["unexpected_keys"]:
        if _OF_A_LAYER.search(name):
            raise _other_file(folder, name, "is in the file, and config.json knows no such layer")
    return encoder, new


def _other_file(folder: Path, name: str, what: str) -> BundleError:
    return BundleError(
        f"a tensor of the encoder {what}",
        code="encoder-unfit",
        key=f"model_name_or_path {folder} {name}",
        remedy="check that config.json and the file of weights are of one encoder, and whole",
    )


def _auto(pooling: str) -> Any:
    return AutoModel if pooling == "mean" else AutoModelForSequenceClassification


def _read_head(head: nn.Linear, path: Path) -> None:
    """Takes the head that `save_pretrained` wrote, if there is one for as many classes."""
    if not path.is_file():
        return
    with reading("classification head", path.parent, f"delete {HEAD_FILE} to begin with a new head"):
        saved = load_file(path)
    if {name: value.shape for name, value in saved.items()} == {n: v.shape for n, v in head.state_dict().items()}:
        head.load_state_dict(saved)


@torch.no_grad()
def _draw(named: Named, generator: torch.Generator) -> None:
    """Matrices uniform with the standard deviation of BERT, biases 0, scales 1.

    Only torch's uniform numbers in [0, 1) are taken: its normal ones are not the same on all kinds of CPU.
    """
    for name, parameter in named:
        if parameter.dim() > 1:
            uniform = torch.rand(parameter.shape, generator=generator)
            parameter.copy_((uniform - 0.5) * (INITIAL_STD * 12**0.5))
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
