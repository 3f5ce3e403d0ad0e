"""Fewer vectors for a document: those that are alike become their mean.

Hierarchical clustering by Ward's criterion on cosine distances (Clavié et al. 2024,
https://arxiv.org/abs/2409.14683), as sentence-transformers' HierarchicalTokenPooling does it.

Shapes: B documents, T tokens, D dimensions, t vectors of one document.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from raydist.models.folders.contract import Contract


def pooled(vectors_BTD: Tensor, mask_BT: Tensor, contract: Contract) -> Tensor:
    """Returns the vectors [B, T', D] of the clusters, zeros where a document has fewer."""
    rows = [_pool(vectors_TD[mask_T], contract) for vectors_TD, mask_T in zip(vectors_BTD, mask_BT)]
    return pad_sequence(rows, batch_first=True)


def _pool(vectors_tD: Tensor, contract: Contract) -> Tensor:
    kept = vectors_tD[: contract.protected_tokens]
    rest = vectors_tD[contract.protected_tokens :]
    clusters = max(int(len(rest) // contract.token_pooling), 1)
    if clusters < len(rest):
        labels_t = torch.from_numpy(_clusters(rest, clusters)).to(rest.device)
        sums = rest.new_zeros(int(labels_t.max()) + 1, rest.shape[1])
        sums = sums.index_add(0, labels_t, rest)
        vectors_tD = torch.cat([kept, sums / labels_t.bincount().unsqueeze(1)])
    return F.normalize(vectors_tD, dim=-1) if contract.pooled_length else vectors_tD


def _clusters(vectors_tD: Tensor, count: int) -> np.ndarray:
    """Returns the cluster of each vector, numbered from 0 without gaps."""
    exact_tD = vectors_tD.detach().float().cpu()
    distances = (1 - exact_tD @ exact_tD.T).clamp_(0, 2).numpy()
    tree = hierarchy.linkage(squareform(distances, checks=False), method="ward")
    labels = hierarchy.fcluster(tree, t=count, criterion="maxclust")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
