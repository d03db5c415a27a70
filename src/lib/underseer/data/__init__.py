"""Data: one small reader per public data set, one schema out, and what is done to rows before any model sees
them.

A data frame of rows has ``id`` (from the content), ``text``, ``label`` and ``source``, and further columns
where a data set has them: ``category``; ``text_pair`` and ``group`` (legal); ``continuation``,
``prompt_toxicity`` and ``toxicity`` (toxicity). ``load`` reads, ``clean_rows`` drops defects, ``split`` deals the
rows out, ``hygiene`` measures what is left, ``check_disjoint`` refuses overlap, ``preflight`` finds a
variant's mistakes before anything runs. Importing this package loads neither pandas nor a network client.

What chat models need stands in modules of its own, not imported here, so that a change to them reruns no classifier:
``prompts`` (attack, safe and borderline prompts), ``preferences`` (pairs that people ordered), ``exchanges`` (answers
that people labelled), ``overlap`` (what such sets share, and evaluation prompts taken out of training ones).
"""

from __future__ import annotations

from underseer.data.clean import clean_rows
from underseer.data.hygiene import check_disjoint, hygiene
from underseer.data.loading import load
from underseer.data.near import NEAR_THRESHOLD, near_pairs
from underseer.data.preflight import check_files, preflight
from underseer.data.registry import CLASSES, DATASETS, LABELS, DatasetInfo, is_synthetic, task_of
from underseer.data.sizes import SPLITS, Sizes
from underseer.data.sources import local_files, sha256
from underseer.data.split import split
from underseer.data.texts import normalise

__all__ = [
    "CLASSES",
    "DATASETS",
    "LABELS",
    "NEAR_THRESHOLD",
    "SPLITS",
    "DatasetInfo",
    "Sizes",
    "check_disjoint",
    "check_files",
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
    "task_of",
]
