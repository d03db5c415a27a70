"""Copies one plan's finished stages into one MLflow experiment. ``tracking`` opens MLflow and calls this.

One run a configuration (a variant without its seed: mean, 95 % interval and number of seeds, with the report's page and figures);
below it one run a variant (all parameters flat, all final metrics); below that the stages, each once, with curves and executed
notebook. A run is FINISHED only when all of it is logged: what an interrupted copy left is deleted and logged again. A stage at
work is a run that is RUNNING, with the curve so far; when the stage has finished, the run of its result takes its place.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underseer import paths, progress, store
from underseer.runs import mlflow_view, names, publish
from underseer.runs.params import RUNTIME
from underseer.runs.plan import Plan
from underseer.store import Output

if TYPE_CHECKING:
    from mlflow.entities import Run

ID = "underseer.id"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
LAYOUT = "3"
"""How runs are named and arranged, in the tag ``underseer.layout``: those of another layout are logged again."""


class Copy:
    """Copies one plan into one MLflow experiment, which ``client`` (an ``MlflowClient``) opens."""

    def __init__(self, client: Any, plan: Plan, *, local: bool) -> None:
        """``local``: no server keeps artifacts, so that they lie in the store."""
        self.client = client
        self.plan = plan
        self.local = local
        self.experiment = self._experiment()
        self.live: dict[str, Run] = {}
        self.known = self._known()
        self.logged = 0
        self.stages: set[str] = set()
        done = {k for k, i in plan.instances.items() if i.cached}
        self.outputs = {k: Output(plan.instances[k].place) for k in plan.instances if k in done}
        self.summary, self.first = self._summary()

    def _experiment(self) -> str:
        known = self.client.get_experiment_by_name(self.plan.name)
        if known is not None:
            if known.lifecycle_stage == "deleted":
                self.client.restore_experiment(known.experiment_id)
            return known.experiment_id
        location = (paths.home() / "mlartifacts" / self.plan.name).as_uri() if self.local else None
        tags = {NOTE: self.plan.description} if self.plan.description else {}
        tags["mlflow.experimentKind"] = "custom_model_development"  # its page opens on runs
        return self.client.create_experiment(self.plan.name, artifact_location=location, tags=tags)

    def _known(self) -> dict[str, Run]:
        """The runs that MLflow holds whole, by their id tag. Runs that were cut short are deleted, and so are doubles, those of
        another layout, and those of stages at work that are over; the others of these go to ``live``."""
        known: dict[str, Run] = {}
        token = None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            for run in (r for r in page if ID in r.data.tags):
                name = run.data.tags[ID]
                if run.data.tags.get("underseer.layout") != LAYOUT:
                    self.client.delete_run(run.info.run_id)
                elif run.info.status == "FINISHED" and name not in known:
                    known[name] = run
                elif self._at_work(name.removeprefix("live:")) and name not in self.live:
                    self.live[name] = run
                else:
                    self.client.delete_run(run.info.run_id)
            token = page.token
            if not token:
                return known

    def _at_work(self, key: str) -> bool:
        instance = self.plan.instances.get(key)
        work = instance and paths.work(instance.stage, key)
        return work is not None and not instance.cached and work.is_dir() and store.is_working(work)

    def _summary(self) -> tuple[dict[str, list], list[str]]:
        """The report's numbers by variant and by configuration, empty while it has not run, and the names of the headline ones."""
        report = self.outputs.get(self.plan.report.key)
        if report is None:
            return {"variants": [], "configurations": []}, []
        summary = report.json("summary")
        primary = report.json("results")["primary_metric"] if report.has("results.json") else "accuracy"
        names = dict.fromkeys(name for rows in summary.values() for row in rows for name in row["metrics"])
        return summary, mlflow_view.headline(self.plan.pipeline, primary, names)

    def all(self) -> int:
        parents: dict[str, str] = {}
        for variant in self.plan.variants:
            values = variant["values"]
            configuration = {k: v for k, v in values.items() if k != "seed"}
            parent = self._configuration(configuration, variant)
            run = self._variant(values, variant, parent)
            for key in variant["needs"]:
                parents.setdefault(key, run)
                self._stage(key, run)
        if self.plan.report.key in self.outputs:
            self._stage(self.plan.report.key, None)
        for instance in self.plan.instances.values():
            if not instance.cached and self._at_work(instance.key):
                self._stage_at_work(instance, parents.get(instance.key))
        self.client.set_experiment_tag(self.experiment, mlflow_view.TAG, mlflow_view.view(self.plan, self.first))
        return self.logged

    def _configuration(self, configuration: dict[str, Any], variant: dict[str, Any]) -> str:
        metrics = self._metrics_of("configurations", configuration)
        parameters = {k: v for k, v in variant["parameters"].items() if k not in RUNTIME and k != "seed"}
        tags = {NOTE: self._description(configuration)}
        title = _title(configuration) or f"{self.plan.name}, all seeds"
        return self._log("configuration", title, [configuration], parameters, metrics, None, tags)

    def _variant(self, values: dict[str, Any], variant: dict[str, Any], parent: str) -> str:
        metrics = self._metrics_of("variants", values)
        parameters = {k: v for k, v in variant["parameters"].items() if k not in RUNTIME}
        stages = {f"stage.{role}": key for role, key in variant["roles"].items()}
        return self._log(
            "variant", _title(values) or self.plan.name, [values, variant["needs"]], parameters, metrics, parent, stages
        )

    def _metrics_of(self, kind: str, values: dict[str, Any]) -> dict[str, float | None]:
        metrics = next((row["metrics"] for row in self.summary[kind] if row["values"] == values), {})
        return mlflow_view.arranged(metrics, self.first)

    def _description(self, configuration: dict[str, Any]) -> str:
        """A configuration in words, with the command that makes it; what a rerun changes of its file stands in the command."""
        options = self.plan.options.get(self.plan.name) or names.read(self.plan.name)
        if configuration and "@" not in self.plan.name:
            options += " " + shlex.join(names.sets({k: json.dumps(v) for k, v in configuration.items()}))
        return f"{self.plan.description}\n\nMade by `{names.command(options)}`. Its report is the artifact `report/index.html`."

    def _stage_at_work(self, instance: Any, parent: str | None) -> None:
        """The curve of a stage that runs now, as far as it has come."""
        state = progress.read(paths.work(instance.stage, instance.key))
        if not state:
            return
        name = f"live:{instance.key}"
        if (known := self.live.get(name)) is not None:
            self._adopt(known, parent)
            run = known.info.run_id
        else:
            run = self._create("stage", instance.stage, name, instance.parameters, {}, parent, {ID: name})
        values = {f"curve.{state['name']}_{k}": float(v) for k, v in state["values"].items()}
        self._points(run, [(metric, value, state["step"]) for metric, value in values.items()])

    def _stage(self, key: str, parent: str | None) -> None:
        output = self.outputs.get(key)
        if output is None or key in self.stages:
            return
        self.stages.add(key)
        if f"stage:{key}" in self.known:
            self._adopt(self.known[f"stage:{key}"], parent)
            return
        manifest = output.manifest
        costs = {f"cost.{k}": v for k, v in manifest["cost"].items()}
        tags = {"mlflow.source.name": f"notebooks/{manifest['stage']}.ipynb", "unsafe": manifest["marks"]["unsafe"]}
        tags |= {f"sha256.{k}": v for k, v in manifest["hashes"].items()}
        tags |= {"promoted": True} if "promoted_from" in manifest else {}
        tags |= {"mlflow.source.git.commit": manifest["provenance"]["commit"] or ""}
        run = self._create(
            "stage",
            manifest["stage"],
            key,
            manifest["parameters"],
            {**manifest["metrics"], **costs},
            parent,
            tags,
            started=_moment(manifest["started"]),
        )
        files = {"manifest.json", *manifest["files"]}  # one that is lost is an error, and the run is logged again
        if "curves.parquet" in files:
            self._curves(run, output.table("curves"))
        for name in ("notebook.ipynb", "manifest.json", "results.json"):
            if name in files and not manifest["marks"]["unsafe"]:
                self.client.log_artifact(run, str(output.path / name))
        self.client.set_terminated(run, end_time=_moment(manifest["finished"]))

    def _log(
        self,
        kind: str,
        title: str,
        identity: list,
        parameters: dict,
        metrics: dict,
        parent: str | None,
        tags: dict | None = None,
    ) -> str:
        """A configuration or variant run: made once; its metrics are logged again when the report's numbers changed."""
        name = json.dumps(identity, sort_keys=True)
        known = self.known.get(f"{kind}:{name}")
        if known is None:
            run = self._create(kind, title, name, parameters, metrics, parent, tags or {})
            if kind == "configuration" and metrics:
                self._report(run)
            self.client.set_terminated(run)
            self.known[f"{kind}:{name}"] = self.client.get_run(run)
            return run
        self._adopt(known, parent)
        held = known.data.metrics
        changed = {k: v for k, v in metrics.items() if held.get(k) != v}
        if changed and kind == "configuration":
            self._report(known.info.run_id)
        self._metrics(known.info.run_id, changed)
        return known.info.run_id

    def _report(self, run: str) -> None:
        """The report's page and figures as artifacts of a configuration."""
        self.client.log_artifacts(run, self._page, "report")

    @cached_property
    def _page(self) -> str:
        """A folder with the report's page, as it is published, and its figures."""
        self._folder = paths.temporary()
        publish.write(self.outputs[self.plan.report.key], folder := Path(self._folder.name))
        for other in (folder / "tables", folder / "results.json", folder / "notebook.ipynb"):
            shutil.rmtree(other) if other.is_dir() else other.unlink(missing_ok=True)
        return self._folder.name

    def _adopt(self, run: Run, parent: str | None) -> None:
        """Hang a run that MLflow holds below its present parent: the former one may have been deleted by hand."""
        if parent and run.data.tags.get(PARENT) != parent:
            self.client.set_tag(run.info.run_id, PARENT, parent)

    def _create(
        self,
        kind: str,
        title: str,
        name: str,
        parameters: dict,
        metrics: dict,
        parent: str | None,
        tags: dict,
        started: int | None = None,
    ) -> str:
        from mlflow.entities import Param

        synthetic = any(o.manifest["marks"]["synthetic"] for o in self.outputs.values())
        every = {ID: f"{kind}:{name}", **tags, "kind": kind, "synthetic": synthetic, "mlflow.runName": title}
        every |= {"underseer.layout": LAYOUT, "profile": self.plan.name.split("/")[0], "pipeline": self.plan.pipeline}
        every["task"] = self.plan.variants[0]["parameters"].get("task", "self-alignment")
        every |= {"rehearsal": True} if self.plan.report.rehearsal else {}
        if parent:
            every[PARENT] = parent
        run = self.client.create_run(
            self.experiment, start_time=started, tags={k: str(v) for k, v in every.items()}, run_name=title
        ).info.run_id
        self.client.log_batch(run, params=[Param(k, "null" if v is None else str(v)) for k, v in parameters.items()])
        self._metrics(run, metrics)
        self.logged += 1
        return run

    def _metrics(self, run: str, metrics: dict[str, float | None]) -> None:
        self._points(run, [(k, float(v), 0) for k, v in metrics.items() if v is not None])

    def _curves(self, run: str, curves: Any) -> None:
        rows = zip(curves.step, curves.metric, curves.value, strict=True)
        self._points(run, [(f"curve.{metric}", float(value), int(step)) for step, metric, value in rows])

    def _points(self, run: str, points: list[tuple[str, float, int]]) -> None:
        """Log (metric, value, step), 1,000 at a time: the most that MLflow accepts in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for first in range(0, len(points), 1000):
            batch = [Metric(name, value, now, step) for name, value, step in points[first : first + 1000]]
            self.client.log_batch(run, metrics=batch)


def _title(values: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in values.items())


def _moment(text: str) -> int:
    """A time of a manifest in MLflow's milliseconds since the epoch."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)
