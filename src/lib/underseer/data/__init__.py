"""Data: one small reader per public data set, one schema out, and what is done to rows before any model sees
them.

A data frame of rows has ``id`` (from the content), ``text``, ``label`` and ``source``, and further columns
where a data set has them (``category``). ``load`` reads, ``clean_rows`` drops defects, ``split`` deals the
rows out, ``hygiene`` measures what is left, ``check_disjoint`` refuses overlap, ``preflight`` finds a
variant's mistakes before anything runs. Importing this package loads neither pandas nor a network client.
"""

from __future__ import annotations

from underseer.data.clean import clean_rows, normalise
from underseer.data.hygiene import check_disjoint, hygiene
from underseer.data.loading import load
from underseer.data.near import NEAR_THRESHOLD, near_pairs
from underseer.data.preflight import preflight
from underseer.data.registry import DATASETS, LABELS, DatasetInfo, is_synthetic
from underseer.data.sources import local_files, sha256
from underseer.data.split import SPLITS, split

__all__ = [
    "DATASETS",
    "LABELS",
    "NEAR_THRESHOLD",
    "SPLITS",
    "DatasetInfo",
    "check_disjoint",
    "clean_rows",
    "hygiene",
    "is_synthetic",
    "load",
    "local_files",
    "near_pairs",
    "normalise",
    "preflight",
    "sha256",
    "split",
]
