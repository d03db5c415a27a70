"""MLflow, and nothing else knows MLflow.

The run store is the truth; this module copies it into MLflow. One experiment a params file; one run a configuration (a
variant without its seed: mean, 95 % interval and n over seeds); below it one run a variant (all parameters flat, all
final metrics); below that the stages, each once, with curves and executed notebook. Copying is idempotent: what MLflow
holds already, by tag, is not logged again, so one process copies after any number of parallel jobs, or a day later.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from underseer import paths
from underseer.runs.params import RUNTIME
from underseer.runs.plan import Plan
from underseer.store import Output

ID = "underseer.id"


class Unreachable(Exception):
    """The tracking server cannot be reached."""


def uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the store's own sqlite file by its absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.home() / 'mlflow.db'}"


def sync(plan: Plan) -> int:
    """Log what MLflow misses of a plan's finished stages; returns the number of runs logged.

    Raises:
        Unreachable: when the tracking server does not answer.
    """
    _reachable(uri())
    mlflow = _quiet_mlflow()
    from mlflow.exceptions import MlflowException

    try:
        logged = _Copy(mlflow.MlflowClient(tracking_uri=uri()), plan).all()
    except MlflowException as error:
        raise Unreachable(str(error).splitlines()[0]) from None
    _remember(plan)
    return logged


def is_logged(plan: Plan) -> bool:
    """Whether all that has finished of a plan was logged to the present tracking URI, as far as this store knows."""
    note = _note(plan)
    if uri().startswith("sqlite:///") and not Path(uri().removeprefix("sqlite:///")).exists():
        return False
    return note.is_file() and json.loads(note.read_text(encoding="utf-8")) == _state(plan)


def _note(plan: Plan) -> Path:
    return paths.plans() / plan.name / ".logged"


def _state(plan: Plan) -> list[str]:
    done = sorted(i.key for i in plan.instances.values() if i.cached)
    return [uri(), json.dumps([v["values"] for v in plan.variants]), *done]


def _remember(plan: Plan) -> None:
    _note(plan).parent.mkdir(parents=True, exist_ok=True)
    _note(plan).write_text(json.dumps(_state(plan)), encoding="utf-8")


def _reachable(address: str) -> None:
    """Fail within seconds where nothing listens; MLflow's own retries take minutes."""
    parts = urlparse(address)
    if parts.scheme not in ("http", "https"):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with closing(socket.create_connection((parts.hostname, port), timeout=5)):
            pass
    except OSError as error:
        raise Unreachable(f"{address}: {error}") from None


def _quiet_mlflow() -> Any:
    """MLflow, patient for seconds and not for minutes, silent about its own set-up, and telling nobody of its use."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


class _Copy:
    """Copies one plan into one MLflow experiment."""

    def __init__(self, client: Any, plan: Plan) -> None:
        self.client = client
        self.plan = plan
        self.experiment = self._experiment()
        self.known = self._known()
        self.logged = 0
        done = {k for k, i in plan.instances.items() if i.cached}
        self.outputs = {k: Output(plan.instances[k].place) for k in plan.instances if k in done}
        self.summary = self._summary()

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.plan.name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return found.experiment_id
        local = uri().startswith("sqlite:")
        location = (paths.home() / "mlartifacts" / self.plan.name).as_uri() if local else None
        tags = {"mlflow.note.content": self.plan.description} if self.plan.description else {}
        return self.client.create_experiment(self.plan.name, artifact_location=location, tags=tags)

    def _known(self) -> dict[str, str]:
        """The runs that MLflow holds: id tag to run id."""
        found: dict[str, str] = {}
        token = None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            found.update({r.data.tags[ID]: r.info.run_id for r in page if ID in r.data.tags})
            token = page.token
            if not token:
                return found

    def _summary(self) -> dict[str, Any]:
        """The report's numbers by variant and by configuration, empty while it has not run."""
        report = self.outputs.get(self.plan.report.key)
        return (
            json.loads(report.file("summary.json").read_text(encoding="utf-8"))
            if report
            else {"variants": [], "configurations": []}
        )

    def all(self) -> int:
        for variant in self.plan.variants:
            values = variant["values"]
            configuration = {k: v for k, v in values.items() if k != "seed"}
            parent = self._configuration(configuration, variant)
            run = self._variant(values, variant, parent)
            for key in variant["needs"]:
                self._stage(key, run)
        if self.plan.report.key in self.outputs:
            self._stage(self.plan.report.key, None)
        return self.logged

    def _configuration(self, configuration: dict[str, Any], variant: dict[str, Any]) -> str:
        metrics = _found(self.summary["configurations"], configuration)
        parameters = {k: v for k, v in variant["parameters"].items() if k not in RUNTIME and k != "seed"}
        return self._log(
            "configuration", _title(configuration) or "all seeds", [configuration], parameters, metrics, None
        )

    def _variant(self, values: dict[str, Any], variant: dict[str, Any], parent: str) -> str:
        metrics = _found(self.summary["variants"], values)
        parameters = {k: v for k, v in variant["parameters"].items() if k not in RUNTIME}
        stages = {f"stage.{role}": key for role, key in variant["roles"].items()}
        return self._log(
            "variant", _title(values) or self.plan.name, [values, variant["needs"]], parameters, metrics, parent, stages
        )

    def _stage(self, key: str, parent: str | None) -> None:
        output = self.outputs.get(key)
        if output is None or f"stage:{key}" in self.known:
            return
        manifest = output.manifest
        told = {f"cost.{k}": v for k, v in manifest["cost"].items()}
        tags = {"mlflow.source.name": f"notebooks/{manifest['stage']}.ipynb", "unsafe": manifest["marks"]["unsafe"]}
        tags |= {f"sha256.{k}": v for k, v in manifest["hashes"].items()}
        tags |= {"mlflow.source.git.commit": manifest["provenance"]["commit"] or ""}
        run = self._create(
            "stage",
            manifest["stage"],
            key,
            manifest["parameters"],
            {**manifest["metrics"], **told},
            parent,
            tags,
            started=_moment(manifest["started"]),
        )
        if (output.path / "curves.parquet").is_file():
            self._curves(run, output.table("curves"))
        for name in ("notebook.ipynb", "manifest.json", "results.json"):
            if (output.path / name).is_file() and not manifest["marks"]["unsafe"]:
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
        name = f"{json.dumps(identity, sort_keys=True)}"
        run = self.known.get(f"{kind}:{name}") or self._create(
            kind, title, name, parameters, metrics, parent, tags or {}
        )
        if f"{kind}:{name}" in self.known and metrics:
            held = self.client.get_run(run).data.metrics
            self._metrics(run, {k: v for k, v in metrics.items() if held.get(k) != v})
        self.known[f"{kind}:{name}"] = run
        self.client.set_terminated(run)
        return run

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

        every = {**tags, ID: f"{kind}:{name}", "kind": kind, "synthetic": self._synthetic(), "mlflow.runName": title}
        every |= {"rehearsal": True} if self.plan.report.rehearsal else {}
        if parent:
            every["mlflow.parentRunId"] = parent
        run = self.client.create_run(
            self.experiment, start_time=started, tags={k: str(v) for k, v in every.items()}, run_name=title
        ).info.run_id
        self.client.log_batch(run, params=[Param(k, "null" if v is None else str(v)) for k, v in parameters.items()])
        self._metrics(run, metrics)
        self.known[f"{kind}:{name}"] = run
        self.logged += 1
        return run

    def _synthetic(self) -> bool:
        return any(o.manifest["marks"]["synthetic"] for o in self.outputs.values())

    def _metrics(self, run: str, metrics: dict[str, float | None]) -> None:
        from mlflow.entities import Metric

        now = _now()
        self.client.log_batch(run, metrics=[Metric(k, float(v), now, 0) for k, v in metrics.items() if v is not None])

    def _curves(self, run: str, curves: Any) -> None:
        from mlflow.entities import Metric

        now = _now()
        points = [
            Metric(f"curve.{m}", float(v), now, int(s))
            for s, m, v in zip(curves.step, curves.metric, curves.value, strict=True)
        ]
        for first in range(0, len(points), 1000):
            self.client.log_batch(run, metrics=points[first : first + 1000])


def _found(rows: list[dict[str, Any]], values: dict[str, Any]) -> dict[str, float | None]:
    return next((row["metrics"] for row in rows if row["values"] == values), {})


def _title(values: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in values.items())


def _moment(text: str) -> int:
    """A time of a manifest in MLflow's milliseconds since the epoch."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _now() -> int:
    return int(time.time() * 1000)
