# Runs the missing stage instances of a plan, each once, inputs before those that read them.
#
# `underseer run` writes the plan and calls this file: `config["plan"]` is the plan's path, `config["marks"]` a folder of this
# run, both below the store, which is Snakemake's folder: braces in the store's own path would be read as wildcards. The rules are
# made from the plan: one a stage, its instances told apart by their key. What a stage needs stands in pipelines.py, not here.
#
# A rule's output is an empty file in the folder of marks, never the manifest in the store: Snakemake deletes an output before
# its job and after one that failed, and another run may have finished the stage meanwhile. On a cluster each job reads this
# file again, when other stages have finished: every stage of the plan has its rule, and an input that has finished no mark.
import functools
import sys
from pathlib import Path

from snakemake.utils import min_version

from underseer import paths
from underseer.runs import resources
from underseer.runs.plan import Plan

min_version("9.0")

PLAN_FILE = str(paths.home() / config["plan"])
PLAN = Plan.from_json(Path(PLAN_FILE).read_text(encoding="utf-8"))
MISSING = dict.fromkeys(instance.key for instance in PLAN.missing())
STAGES = sorted({instance.stage for instance in PLAN.instances.values()})


def mark(stage, key):
    return f"{config['marks']}/{stage.replace('/', '_')}/{key}"


def marks_of_inputs(wildcards):
    keys = [key for keys in PLAN.instances[wildcards.key].inputs.values() for key in keys]
    return [mark(PLAN.instances[key].stage, key) for key in keys if key in MISSING]


def priorities():
    """Of each stage: how long the longest chain of stages is that waits for it, so that long chains begin early. Reports
    come first: they are short, and no one waits for them but people."""
    waiting = dict.fromkeys(PLAN.instances, 0)
    for instance in reversed(PLAN.instances.values()):
        for key in (key for keys in instance.inputs.values() for key in keys):
            waiting[key] = max(waiting[key], waiting[instance.key] + 1)
    found = {}
    for key, chain in waiting.items():
        stage = PLAN.instances[key].stage
        found[stage] = max(found.get(stage, 0), chain)
    return {stage: chain or len(waiting) for stage, chain in found.items()}


PRIORITIES = priorities()


wildcard_constraints:
    key="[0-9a-f]{16}",


# Snakemake's limit of 100 jobs a second, which no option turns off, makes each finished job start a timer that calls the
# scheduler every second until the end: after 200 stages that takes half a core. Without it the end of a job calls it.
onstart:
    workflow.scheduler.job_rate_limiter = None


rule all:
    input:
        [mark(PLAN.instances[key].stage, key) for key in MISSING],
    default_target: True


for stage in STAGES:

    rule:
        name:
            stage.replace("/", "_")
        input:
            marks_of_inputs,
        output:
            mark(stage, "{key}"),
        priority: PRIORITIES[stage]
        threads: lambda wildcards: PLAN.instances[wildcards.key].runtime.get("threads", 1)
        resources:
            **resources.of_rule(PLAN, stage),
        params:
            python=lambda wildcards: sys.executable,
            plan=lambda wildcards: PLAN_FILE,
        shell:
            "{params.python:q} -m underseer.runs.warm run underseer.runs.execute {params.plan:q} {wildcards.key} && touch {output:q}"
