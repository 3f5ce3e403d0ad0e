"""The bi-encoder: one or two transformers that turn texts into what is compared by dot products.

Its head decides what that is: one vector a text, or weights of the vocabulary's terms.

Shapes: B texts, T tokens, D dimensions (or terms).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raydist.errors import ConfigError
from raydist.models.adapters import merged, save_adapters
from raydist.models.architecture import (
    first_position,
    has_position_table,
    is_causal,
    names_positions,
    sees_all_alike,
    takes_positions,
    width,
)
from raydist.models.backbone import (
    PROBE,
    attention_of,
    check_outputs,
    check_vocabulary,
    compiled,
    load_backbone,
    resolve_folder,
    save_transformer,
)
from raydist.models.encode import encode, encode_tokens
from raydist.models.folders.contract import Contract, frozen_attention
from raydist.models.folders.encoder import projections_of, read_encoder_folder
from raydist.models.folders.multivector import write_late_folder
from raydist.models.folders.pylate import write_pylate_folder
from raydist.models.folders.sentence_transformers import table_place, write_st_folder
from raydist.models.heads import make_head
from raydist.models.packed_attention import VARLEN
from raydist.models.packing import edges_of, packed_rows, placed, unpadded, wide_mask
from raydist.models.projection import SENTENCE, TOKENS, Projection
from raydist.models.spec import BiEncoderSettings, FolderLayout
from raydist.models.term_pooling import heaviest
from raydist.models.term_table import TermTable
from raydist.models.texts.tokenizer import save_tokenizer
from raydist.models.texts.tokens import ROLES, SEGMENTED, Role, TextTokenizer, pad_ids
from raydist.models.token_vectors import TokenVectors


class BiEncoder(nn.Module):
    """A transformer with a head, such as pooling; `BiEncoder.load` opens one.

    Attributes:
        contract: the frozen text preparation; see `raydist.models.folders.contract.Contract`.
        towers: one transformer, or the query's (answers too) and the document's.
        tokenizer: the Hugging Face tokenizer, shared by the towers.
        head: what it makes of token vectors.
        table: weighs queries' tokens in place of the first tower, or None.
        tokens: which tokens' vectors are scored, in a multi-vector model, or None.
        projections: linear maps after the pooling; most models have none.
        truncate: output dimensions kept (a Matryoshka prefix), 0 = all.
        autocast: dtype of the matrix products where weights stay float32, or None.
        source: the folder it was loaded from.
        shifts: whether padding on the left would move positions, were they not given.
    """

    def __init__(
        self,
        towers: Sequence[nn.Module],
        tokenizer: Any,
        contract: Contract,
        *,
        table: TermTable | None = None,
        projections: Sequence[Projection] = (),
        truncate: int = 0,
        autocast: torch.dtype | None = None,
        source: str = "",
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleList(towers)
        self.head = make_head(contract, list(towers))
        self.table = table
        self.projections = nn.ModuleList(projections)
        self.tokenizer = tokenizer
        self.contract = contract
        self.truncate = truncate
        self.autocast = autocast
        self.source = source
        multivector = contract.kind == "multivector"
        self.tokens = TokenVectors(contract, tokenizer) if multivector else None
        self._tokenizers = {role: self._role_tokenizer(role) for role in ROLES}
        # Some number positions by the padding id, and some have none.
        self._give_positions = contract.padding_side == "left" and takes_positions(self.towers[0])
        config: Any = self.towers[0].config
        # Others count positions from the left, padding included.
        self.shifts = has_position_table(self.towers[0])
        self._wide_mask = sees_all_alike(self.towers[0])
        segmented = config.model_type in SEGMENTED
        self._types = self._tokenizers["document"].special_types() if segmented else {}

    @classmethod
    def load(
        cls,
        model: BiEncoderSettings | str | Path,
        *,
        truncate: int = 0,
        fresh_head: bool = False,
        seed: int = 0,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> BiEncoder:
        """Returns the model of a raydist, sentence-transformers or plain Hugging Face folder.

        None leaves a setting to the folder: its `raydist.json`, else its `modules.json`, else cls
        pooling (last_token with left padding for a decoder), no normalisation, no instructions and
        512 tokens or the model's limit.

        Args:
            model: its settings, or its folder, finished training run, or hub name.
            truncate: output dimensions to keep, 0 = all.
            fresh_head: start from a random language-model head where weights of terms need one
                that the folder lacks (to train it).
            seed: of the fresh head and the LoRA matrices.
            device: where to put it; None = an accelerator if there is one.
            settings: fields of `BiEncoderSettings` beside the path, such as `pooling="mean"`.

        Raises:
            ConfigError: a value contradicts the folder, or is out of bounds.
            ArtifactError: the folder is no bi-encoder that raydist can read.
            DataError: there is no such folder or name.
        """
        spec = BiEncoderSettings.of(model, **settings)
        folder = resolve_folder(spec.path or "")
        read, truncate = read_encoder_folder(folder, spec, truncate)
        attention = frozen_attention(folder)
        loaded = [
            load_backbone(
                place,
                spec,
                terms=read.contract.kind == "sparse",
                fresh_head=fresh_head,
                attention=attention,
                seed=seed,
            )
            for place in read.places
        ]
        check_vocabulary(read.tokenizer, loaded[0], folder)
        encoder = cls(
            loaded,
            read.tokenizer,
            read.contract,
            table=read.term_table(spec.query_weights),
            projections=projections_of(read, spec, seed),
            truncate=truncate,
            autocast=torch.bfloat16 if spec.half_autocast else None,
            source=str(folder),
        )
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        encoder = encoder.to(device).eval()
        role: Role = "query" if encoder.table is None else "document"
        ids = encoder.tokenize(PROBE, role)

        def output(rows: Sequence[int]) -> Tensor:
            inputs = encoder.pad([ids[row] for row in rows])
            vectors: Tensor = encoder({k: each.to(device) for k, each in inputs.items()}, role)
            return vectors if encoder.tokens is None else vectors.sum(1)

        kind = read.config.model_type
        if encoder.packs:
            encoder.check_packing()
        vector = check_outputs(encoder, encoder.towers[0], output, spec, kind)
        if encoder._give_positions and not encoder.shifts:
            encoder._give_positions = False
            with torch.no_grad():
                moved = output([0, 1])[0]
            encoder._give_positions = True
            encoder.shifts = not torch.allclose(moved.float(), vector, rtol=0.01, atol=0.01)
        if encoder.table is not None and len(encoder.table.weight) != encoder.dimension:
            raise ConfigError(
                f"model {folder}: queries have weights of {len(encoder.table.weight):,} tokens, "
                f"documents of {encoder.dimension:,}; expected one vocabulary"
            )
        size = len(vector)
        if size != encoder.dimension:
            raise ConfigError(
                f"model {folder}: {kind} gives {size} numbers a token, its config.json says "
                f"{encoder.dimension}; expected another architecture"
            )
        if spec.compile:
            compiled(encoder.towers)
        return encoder

    @property
    def packs(self) -> bool:
        """Whether texts are laid end to end instead of padded."""
        config: Any = self.towers[0].config
        return bool(config._attn_implementation == VARLEN)

    def check_packing(self) -> None:
        """Raises ConfigError where a text's vector depends on those that it is packed with.

        Alone, a text has the positions that the transformer itself counts.
        """
        texts = self.tokenize(["a", "one two three"], "document")
        with torch.no_grad():
            together, *alone = (
                self._packed(placed(packed_rows(rows), self.device), "document", len(rows) > 1)
                for rows in (texts, *([row] for row in texts))
            )
        half = self.autocast is not None or next(self.parameters()).dtype.itemsize < 4
        difference = (together - torch.cat(alone)).abs().max() / together.abs().max()
        if not difference <= (0.02 if half else 1e-4):
            config: Any = self.towers[0].config
            raise ConfigError(
                f"attention=varlen: {config.model_type} does not take texts laid end to end; "
                "leave it out"
            )

    @property
    def hidden(self) -> int:
        """The width of the backbone's token vectors."""
        return width(self.towers[0].config)

    @property
    def whole_dimension(self) -> int:
        """The length of a vector before it is truncated."""
        if not self.projections:
            return self.head.width(self.towers[0])
        return int(self.projections[-1].linear.out_features)  # type: ignore[union-attr, arg-type]

    @property
    def dimension(self) -> int:
        """The length of an output vector."""
        return self.truncate or self.whole_dimension

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def _role_tokenizer(self, role: Role) -> TextTokenizer:
        if self.tokens is not None and role == "query":
            return self.tokens.tokenizer(self.tokenizer)
        return TextTokenizer(
            self.tokenizer,
            max_length=self.contract.max_length(role),
            instruction=self.contract.instruction(role),
            bare=self.contract.query_encoder != "transformer" and role != "document",
        )

    def role_tokenizer(self, role: Role) -> TextTokenizer:
        """Returns the tokenizer of a role: picklable, without weights, for data workers."""
        return self._tokenizers[role]

    def tokenize(
        self, texts: Sequence[str], role: Role, instruction: str | None = None
    ) -> list[list[int]]:
        """Returns each text's token ids: instruction and special tokens in, truncated, unpadded.

        `instruction` replaces the frozen one (a data set's own prompt).
        """
        return self._tokenizers[role](texts, instruction)

    def pad(self, token_ids: Sequence[Sequence[int]], multiple: int = 1) -> dict[str, Tensor]:
        """Returns `input_ids` and `attention_mask` [B, T] on the CPU, padded on the frozen side."""
        return pad_ids(
            token_ids,
            filler=self.tokenizer.pad_token_id,
            side=self.contract.padding_side,
            multiple=multiple,
        )

    def tower(self, role: Role) -> nn.Module:
        """Returns the transformer that encodes texts of a role."""
        return self.towers[-1 if role == "document" else 0]

    def forward(self, inputs: Mapping[str, Tensor], role: Role = "query") -> Tensor:
        """Returns the vectors [B, D] in float32 (float64 for float64 weights).

        Those of a multi-vector model are [B, T, D], with zeros for tokens that have none.

        Args:
            inputs: `input_ids` [B, T] and `attention_mask` [B, T]; the mask may be left out where
                nothing is padded, which is faster. A model that `packs` takes packed ones, too.
            role: which tower encodes, where there are two.
        """
        if self.table is not None and role != "document":
            vectors_BD = self.table(inputs)
        elif self.packs:
            inputs = inputs if "edges" in inputs else unpadded(inputs)
            vectors_BD = self._packed(inputs, role)
        else:
            seen = inputs if self.tokens is None else self.tokens.seen(inputs, role)
            vectors_BD = self._padded(seen, role)
        if not self.training and (terms := self.contract.terms(role)):
            vectors_BD = heaviest(vectors_BD, terms)
        for projection in self.projections:
            vectors_BD = projection(vectors_BD)
        if self.truncate:
            vectors_BD = vectors_BD[:, : self.truncate]
        if self.contract.normalize:
            vectors_BD = F.normalize(vectors_BD, dim=-1)
        return vectors_BD if self.tokens is None else self.tokens.scored(vectors_BD, inputs, role)

    def _padded(self, inputs: Mapping[str, Tensor], role: Role) -> Tensor:
        mask_BT = inputs.get("attention_mask")
        extra: dict[str, Any] = {}
        if mask_BT is not None and self._give_positions:
            extra["position_ids"] = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        input_ids = inputs["input_ids"]
        if self._types:
            extra["token_type_ids"] = torch.zeros_like(input_ids)
            for token, kind in self._types.items():
                extra["token_type_ids"][input_ids == token] = kind
        extra["attention_mask"] = mask_BT
        if mask_BT is not None and mask_BT.device.type != "cpu" and self._wide_mask:
            extra["attention_mask"] = wide_mask(mask_BT, is_causal(self.towers[0].config))
        hidden_BTD = self._hidden(role, input_ids=input_ids, **extra)
        with self._half():
            return self.head.padded(self.tower(role), hidden_BTD, mask_BT)

    def _packed(self, inputs: Mapping[str, Tensor], role: Role, positions: bool = True) -> Tensor:
        extra: dict[str, Any] = edges_of(inputs).options()
        tower = self.tower(role)
        if positions and names_positions(tower):
            extra["position_ids"] = inputs["positions"] + first_position(tower)
        hidden_1TD = self._hidden(role, input_ids=inputs["input_ids"], **extra)
        with self._half():
            return self.head.packed(tower, hidden_1TD[0], inputs)

    def _hidden(self, role: Role, **inputs: Any) -> Tensor:
        """Returns the output of a role's transformer that the head reads."""
        with self._half():
            hidden: Tensor = getattr(self.tower(role)(**inputs), self.head.output)
        return hidden

    def _half(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)

    def encode_queries(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        """Returns float32 vectors [n, D]; `options` are those of `raydist.models.encode.encode`.

        A multi-vector model gives a list of [t, D] instead.
        """
        vectors: np.ndarray = self._encode(texts, "query", **options)
        return vectors

    def encode_documents(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        """Returns float32 vectors [n, D] like `encode_queries`."""
        vectors: np.ndarray = self._encode(texts, "document", **options)
        return vectors

    def _encode(self, texts: Sequence[str], role: Role, **options: Any) -> Any:
        return (encode if self.tokens is None else encode_tokens)(self, texts, role, **options)

    def merged(self) -> BiEncoder:
        """Returns a copy on the CPU with LoRA matrices in the weights; itself without any."""
        towers = [merged(tower) for tower in self.towers]
        if all(whole is tower for whole, tower in zip(towers, self.towers)):
            return self
        whole = BiEncoder(
            towers,
            self.tokenizer,
            self.contract,
            table=copy.deepcopy(self.table),
            projections=copy.deepcopy(list(self.projections)),  # type: ignore[arg-type]
            truncate=self.truncate,
            autocast=self.autocast,
            source=self.source,
        )
        whole.shifts = self.shifts
        return whole.eval()

    def save_adapters(self, folder: Path) -> None:
        """Writes the adapters beside the merged weights in a folder, of one tower."""
        if len(self.towers) == 1 and hasattr(self.towers[0], "merge_and_unload"):
            save_adapters(self.towers[0], folder)

    def save(
        self,
        folder: str | Path,
        *,
        weights: Callable[[Any, Path], None] = save_transformer,
        layout: FolderLayout = "sentence-transformers",
        **provenance: Any,
    ) -> None:
        """Writes a folder that raydist and sentence-transformers load with equal vectors.

        LoRA matrices are merged into the written weights; the model itself does not change.

        Args:
            folder: created if missing.
            weights: writes a transformer into a folder.
            layout: `pylate` for a multi-vector model that PyLate is to load, too.
            provenance: further JSON values for `raydist.json`, such as `settings`.

        Raises:
            ConfigError: PyLate cannot load such a model.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        contract = replace(self.contract, towers=len(self.towers))
        if self.shifts:  # the vectors are the same
            contract = replace(contract, padding_side="right")
        of = SENTENCE
        count = len(self.projections)
        if layout == "pylate":
            places, dense = write_pylate_folder(folder, contract, self.tokenizer, count)
        elif self.tokens is not None:
            places, dense = write_late_folder(folder, contract, count)
            of = TOKENS
        else:
            places, dense = write_st_folder(
                folder,
                contract,
                self.hidden,
                truncate=self.truncate,
                dense=count,
                causal=is_causal(self.towers[0].config),
            )
        if self.table is not None:
            place = table_place(folder)
            self.table.save(place)
            save_tokenizer(self.tokenizer, place, contract.query_max_length)
        for projection, place in zip(self.projections, dense):
            projection.save(place, of)  # type: ignore[operator]
        for i, (tower, place) in enumerate(zip(self.towers, places)):
            weights(tower, place)
            self.tokenizer.padding_side = contract.padding_side
            lengths = {"query": contract.query_max_length, "document": contract.document_max_length}
            length = max(lengths.values()) if len(places) == 1 else list(lengths.values())[i]
            length = length if self.table is None else contract.document_max_length
            save_tokenizer(self.tokenizer, place, length)
        provenance |= attention_of(self.towers[0])
        contract.write(folder, dimension=self.whole_dimension, **provenance)
